// Package schedext is the optional second back end of the classes: a
// sched_ext scheduler in BPF that knows the classes by their cgroups and runs interactive work in order of
// deadline, which the serving path writes to shared memory. If it fails, the kernel's watchdog removes it,
// and the stock scheduler takes over with all cgroup settings unchanged.
//
// bpf/scheduler.bpf.o is compiled from bpf/scheduler.bpf.c by make (see package
// bpf). The package knows cgroups by their folders alone.
package schedext
