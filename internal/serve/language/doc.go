// Package language says how a language model looks to the core of serving: its
// tensors carry one request of an HTTP API for language models and its answer,
// in parts as it comes. Engines and fronts agree by it; neither knows the other.
package language
