// Package isolate makes the kernel enforce what placement promised: it turns the
// classes realtime, interactive and batch into cgroups (version 2), cpuset
// partitions, scheduling policies, interrupt and kernel-thread affinities and
// memory protection; admits DEADLINE reservations; holds batch work back
// before interactive work suffers; and measures the result. It sets up the kernel before a process starts
// (Prepare), sets what needs a process (Apply), undoes everything (Release) and detects changes by others
// (Verify).
//
// Changes are serialized; reading, the guard of interactive work and setting huge pages aside wait for none
// of them.
//
// It never chooses CPUs or devices (internal/place) and never starts processes
// (internal/container). What this host cannot enforce is listed by Gaps with the reason, never silently
// dropped. It depends on internal/hardware for CPU sets and on internal/linux.
package isolate
