// Package place decides which cores, memory and devices of which machine a piece of work gets, and says why.
// It owns the model of a machine's resources, the requests, the state of what is given out, and the scores
// that choose between possible sets. It is pure: no I/O, no clock, no goroutine; the same inputs give the
// same answer. The node, the simulator and the cluster share it, so that nothing is placed by one and refused
// by another. It imports nothing of Oscine.
package place
