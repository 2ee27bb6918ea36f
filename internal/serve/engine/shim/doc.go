// Package shim runs models with engines that have only a C++ API: through a small
// library of C functions that is compiled when the pack is built
// (internal/pack/shim). It reads what a Model's options state of inputs and outputs
// where the format does not tell. It is part of engine workers, not of the daemon.
package shim
