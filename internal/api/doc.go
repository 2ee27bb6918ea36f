// Package api owns a node's remote interface: the Connect/gRPC service over
// mutual TLS and its roles. It translates calls to internal/node and decides
// nothing itself; the other side is internal/client.
package api
