// Package tensor owns how tensors are described at Oscine's interfaces: the data
// types of the Open Inference Protocol, shapes with their bounds, and the
// scanner that turns JSON numbers straight into a tensor's bytes. It never
// allocates a tensor: callers give it the memory. It depends on nothing.
package tensor
