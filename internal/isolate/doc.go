// Package isolate makes the kernel keep what placement promised: it turns the
// classes realtime, interactive and batch into cgroups (version 2), cpuset
// partitions, scheduling policies, interrupt and kernel-thread affinities and
// memory protection; admits DEADLINE reservations; holds batch work back
// before interactive work suffers; and measures what came of it. It tells the
// kernel before a process starts (Prepare), sets what needs one (Apply), takes
// everything back (Release) and notices when someone else changed it (Verify).
//
// Changes come one after the other; reading, the guard of interactive work and
// setting huge pages aside wait for none of them.
//
// It never chooses CPUs or devices (internal/place) and never starts processes
// (internal/container). What this host cannot hold is listed by Gaps with the
// reason, never silently dropped. It depends on internal/hardware for CPU sets
// and on internal/linux.
package isolate
