// Package runqueue measures by a BPF program at the scheduler's tracepoints how
// long the threads of each workload wait for a processor after they are woken:
// a histogram for each cgroup, and how many wake-ups took longer than promised.
// It needs a kernel that describes itself (CONFIG_DEBUG_INFO_BTF) and
// CAP_BPF with CAP_PERFMON, or root. It identifies cgroups by their folders and decides nothing.
package runqueue
