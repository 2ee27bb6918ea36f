// Package boot is the program init: stage 1 in the initramfs, which finds and
// verifies the root of its own version, and PID 1 on that root, which supervises
// oscined. It owns the kernel's early mounts, modules, the hardware watchdog,
// the boot counter of the slot and the last step of every shutdown. It decides
// nothing about workloads or the network and reads no configuration: what can
// fail or hang belongs in oscined, because a PID 1 that panics is a kernel panic.
// It depends on internal/linux and the standard library without net.
package boot
