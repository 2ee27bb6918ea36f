// Command oscine-onnx is the engine worker for ONNX models: it loads one model
// with ONNX Runtime and runs it for the daemon over a Unix socket and shared
// memory. It is started by oscined inside the onnxruntime pack.
package main
