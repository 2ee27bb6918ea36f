// Package job optimises one model inside a tool pack's container: it has ONNX
// Runtime's own tools make the result, runs original and result with Oscine's engine
// on the CPUs at hand, and gives the result only where it passes the gate. Models
// and data come as an archive on standard input, the result goes to standard output.
package job
