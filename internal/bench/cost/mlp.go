package main

import "oscine.dev/oscine/internal/samples/synthetic"

// features is how many floats a row of the made models has, in and out.
const features = 64

// mlp returns an ONNX model x [batch, 64] → y [batch, 64] of fully connected layers
// whose hidden ones have the given widths.
func mlp(hidden ...uint64) []byte {
	m := synthetic.New(features)
	width := uint64(features)
	for _, next := range hidden {
		m.Dense(width, next)
		m.Operator("Relu")
		width = next
	}
	m.Dense(width, features)
	return m.Bytes(features)
}
