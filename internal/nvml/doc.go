// Package nvml asks NVIDIA's management library, libnvidia-ml.so.1, about the GPUs of a machine and has it
// divide them: model, memory, health, links, MIG partitions, load, events, compute modes, and the
// Multi-Process Service beside it. It loads the library at run time with dlopen through purego, as nvml.h
// describes it, so that it needs no C compiler on any architecture. It belongs in the helper program
// oscine-nvml of the NVIDIA driver pack, never in the daemon, so that a library that crashes or hangs takes
// down only its own process. It decides nothing; internal/place assigns the parts of a GPU.
package nvml
