// Package bpf holds what the BPF programs of other packages share: kernel.h, which declares the kernel types
// and functions that they use, in place of the kernel's headers; the program that compiles them
// (internal/bpf/compile); and Read, which finds the compiled object in a program that embeds it. Objects are
// built by make beside their sources, are the same for all architectures, and are not committed: a program
// built without them returns an error when it needs them. Their packages decide which programs run.
package bpf
