// Package kmod owns the kernel modules that a Machine asks for: whether the image has
// them, loading them with their parameters, and unloading those that are no longer
// wanted. It lists those that it has loaded in a file that its caller names, and loads
// them with the program that the kernel itself runs as modprobe. Modules that devices
// need are internal/boot's. It depends on internal/object, durable and linux.
package kmod
