// Package oip is the front of the Open Inference Protocol v2 over HTTP, with
// Triton's binary tensors: it reads requests, hands them to core and writes the
// answers. Its Methods do all but inference, for gRPC too (package rpc below).
// It depends on core and on what all fronts share.
//
// Source: github.com/kserve/open-inference-protocol,
// specification/protocol/inference_rest.md, and Triton's
// docs/protocol/extension_binary_data.md.
package oip
