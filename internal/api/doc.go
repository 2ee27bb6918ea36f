// Package api owns a node's remote interface: Connect/gRPC services over
// mutual TLS, one for each domain, as defined in proto/, and their roles. It
// translates calls to internal/node and decides nothing itself; the other side
// is internal/client.
package api
