// Package core owns the serving of models, whatever protocol a client speaks:
// which models there are, the supervision of their workers, the queue of each,
// its slots of shared memory, deadlines, batches, states of sequences, ensembles,
// the response cache and cancellation. Its one entry for requests is Registry.Infer.
// It knows neither HTTP nor JSON, neither containers nor placement: a front
// (internal/serve/front) brings requests, a Starter brings a worker to life, a worker
// answers over package channel, and killing one touches no other model. No slot is
// held while waiting for a client.
package core
