// Package install puts Oscine on a disk: it lists the disks of the machine it runs
// on with what would be lost, refuses those that must not be written, and makes
// one bootable from a kernel image and its root, which it reads back. It runs in
// the daemon of a booted image and, as root, in the command-line tool on any
// Linux. It asks nobody: that is its callers' part. It depends on package
// image/layout for how a disk is divided, on uki for what a kernel image holds, on
// internal/linux for partitions, and on the API's messages, as which it hands out
// disks.
package install
