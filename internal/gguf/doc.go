// Package gguf reads the header of a GGUF file, the format of llama.cpp's
// models, and computes the memory that serving it takes. It bounds what it
// reads, checks that the file holds all tensors that the header lists, and
// never reads the weights. It depends on nothing of Oscine but how byte counts
// are shown.
//
// Source: github.com/ggml-org/ggml, docs/gguf.md.
package gguf
