// Package onnx runs ONNX models with ONNX Runtime. It loads the library at run
// time with dlopen through purego and calls the C API's function table, so that
// it needs no C compiler on any architecture. All memory that the library sees
// lies outside the Go heap. It is part of engine workers, not of the
// daemon: a model that crashes the library takes down only its own process.
package onnx
