// Package boot is the program init: stage 1 in the initramfs, which finds and
// verifies the root of its own version, and PID 1 on that root, which supervises
// oscined. It owns the kernel's early mounts, modules, the hardware watchdog,
// the boot counter of the slot, erasing the data partition and the last step of
// every shutdown. It decides nothing about workloads or the network; a Machine
// file on the ESP it moves to where oscined reads it, and does not parse. What can
// fail or hang belongs in oscined, because a PID 1 that panics is a kernel panic.
// It depends on internal/linux, release, durable, bounded and the standard library
// without net.
package boot
