// Package image builds, opens and explains Oscine's disk images: a GPT disk
// with an EFI system partition, two root slots and a data partition, from
// which UEFI starts systemd-boot, that a signed unified kernel image, and that
// a read-only erofs root verified block by block.
//
// It owns the list of what the root holds and why, and the order in which kernel
// modules load; how a disk is divided is package image/layout's. It does not run
// images: that is package machine, which reads kernel, initramfs and command line
// back with [Open]. It depends on package debian for the parts that Oscine does
// not build itself, on the go command for those that it does, and on packages uki
// and secureboot for the kernel image and its signatures.
package image
