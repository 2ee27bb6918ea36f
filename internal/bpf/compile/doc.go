// Command compile compiles BPF programs with the pinned clang: each NAME.bpf.c
// to NAME.bpf.o beside it. The objects hold no path and no time, and are the same
// bytes on every host.
package main
