// Package cpio writes and reads archives of the "newc" format, which the kernel
// unpacks as initramfs. It knows neither compression nor files on a disk, and
// depends on the standard library only.
package cpio
