// Package optimize is what oscine optimize and the tool that it runs on a node
// share: what is asked and what comes back, the data that a model is calibrated and
// judged with, and the gate that an optimised model has to pass. It runs no model.
package optimize
