// Package serve owns model serving on a node: the registry of models, the
// supervision of their engine workers, the Open Inference Protocol v2 over
// HTTP, and the way of a tensor from a request into the shared memory that the
// worker reads. It never runs a model itself and knows neither containers nor
// placement: a Starter brings a worker to life, a worker answers on a socket
// (package channel), and killing one touches no other model.
package serve
