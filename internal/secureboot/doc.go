// Package secureboot makes the keys that firmware checks signatures with (platform
// key, key exchange key and signature database) and the files by which it takes
// them. It signs no image, which package uki does, and touches no firmware: the
// boot loader enrols what lies on the ESP. It depends on packages uki and durable.
package secureboot
