// Package oip is a small client of the Open Inference Protocol v2 over HTTP,
// with binary tensors. It works against any server of the protocol and knows
// nothing of Oscine's own.
package oip
