// Package synthetic writes ONNX models with made-up weights, of any size, for
// benchmarks and tests. It writes chains of operators alone, and depends on the wire
// format of protocol buffers only.
package synthetic
