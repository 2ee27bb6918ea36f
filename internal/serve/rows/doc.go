// Package rows proves that a model treats the rows of its inputs independently:
// that row i of every output depends on row i of the inputs and on nothing else,
// so that requests of different clients may be computed as one batch. It reads
// an ONNX file without loading it and follows the batch dimension from operator
// to operator. It prefers soundness to completeness: an unknown operator, attribute or shape ends the proof.
// It depends on nothing of Oscine.
//
// Source: github.com/onnx/onnx, docs/Operators.md and onnx/onnx.proto.
package rows
