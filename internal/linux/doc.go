// Package linux wraps the raw Linux system calls and ioctls that neither the
// standard library nor golang.org/x/sys/unix offers as a function: mappings
// of the device mapper, compressed kernel modules, named partitions, partition and
// file-system growth, EFI variables and the EFI system partition, watchdogs,
// input events, quotas, the kernel's log, the memory of a process. It decides
// nothing, keeps no state and depends on golang.org/x/sys/unix alone, because
// PID 1 is built from it.
package linux
