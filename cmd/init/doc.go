// Command init is both the first program of the initramfs (stage 1) and process
// 1 of the running system; see internal/boot.
package main
