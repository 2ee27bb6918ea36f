// Package api owns a node's remote interface: the Connect/gRPC service over
// mutual TLS, its roles, and the client that the command line uses. It
// translates calls to internal/node and decides nothing itself.
package api
