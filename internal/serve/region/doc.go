// Package region owns the shared memory that clients on the same node hand over
// with their connection: memfds whose size is sealed, each by a name that counts on
// that connection only. The daemon maps none of it: it reads and writes by pread
// and pwrite, which no client can turn into a fault. It knows no protocol.
package region
