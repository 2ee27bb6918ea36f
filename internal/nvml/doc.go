// Package nvml asks NVIDIA's management library, libnvidia-ml.so.1, of the GPUs
// of a machine and has it divide them: model, memory, health, links, MIG
// partitions, load, events, compute modes, and the Multi-Process Service beside
// it. It loads the library at run time with dlopen through purego, as nvml.h
// describes it, so that it needs no C compiler on any architecture. It belongs
// into the helper program oscine-nvml of the NVIDIA driver pack, never into the
// daemon: a library that crashes or hangs takes only its own process along. It
// decides nothing; which part of a GPU goes to whom is internal/place's matter.
package nvml
