// Package rpc is the front of the Open Inference Protocol v2 over gRPC: it
// frames messages over HTTP/2, reads requests in place, hands them to core and
// writes the answers. What the methods besides inference do it takes from
// package oip, which does the same over HTTP.
//
// Sources: the gRPC project's doc/PROTOCOL-HTTP2.md; KServe's
// specification/protocol/inference_grpc.md and Triton's grpc_service.proto.
package rpc
