// Package slot puts a release into the slot that does not run: it tells which
// versions the disk holds and what they are, removes the old kernel image before
// its root is overwritten, checks what was written by reading it back from the
// disk, and puts the new kernel image in place as the last step. Whenever power
// fails, the boot loader finds a version that was whole before. It repairs a damaged
// ESP from copies of what was good. It knows no
// source of releases and decides nothing about when.
package slot
