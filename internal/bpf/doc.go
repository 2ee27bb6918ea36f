// Package bpf holds what the BPF programs of other packages share: kernel.h,
// which declares of the kernel's types and functions what they use, without
// its own headers; the program that compiles them (internal/bpf/compile); and
// Read, which finds the outcome in a program that embeds it. Objects are built
// by make beside their sources, are the same for all architectures, and are no
// part of the source tree: a program built without them says so when they are
// asked for. Which programs run, and what for, is decided by their packages.
package bpf
