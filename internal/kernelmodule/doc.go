// Package kernelmodule compiles kernel modules that are no part of the kernel for
// Oscine's pinned kernels, and signs them as those kernels check it. The compiler
// is the pinned one that Debian builds its kernels with; it runs in a root of its
// own, so that nothing of the host but its kernel counts. The package loads no
// module; it depends on debian for packages and on uki for keys.
package kernelmodule
