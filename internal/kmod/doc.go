// Package kmod owns the kernel modules that a Machine asks for: whether the image has
// them, loading them with their parameters, and unloading those that are no longer
// wanted. Modules that devices need are internal/boot's.
package kmod
