// Package executorch runs programs of ExecuTorch (.pte) on CPUs. It is part of
// engine workers, not of the daemon.
package executorch
