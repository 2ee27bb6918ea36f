// Package schedext is the second back end of the classes, chosen on purpose: a
// sched_ext scheduler in BPF that knows the classes by their cgroups and runs
// interactive work in the order of deadlines, which the serving path writes to
// shared memory. The kernel's watchdog takes it out when it fails, and the
// stock scheduler goes on with all cgroup settings as they are.
//
// bpf/scheduler.bpf.o is compiled from bpf/scheduler.bpf.c by make (see package
// bpf). The package knows cgroups by their folders alone.
package schedext
