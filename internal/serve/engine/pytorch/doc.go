// Package pytorch runs TorchScript, and models that AOTInductor has compiled, with
// PyTorch on CPUs. It looks through a model's archive before the library reads it.
// It is part of engine workers, not of the daemon.
package pytorch
