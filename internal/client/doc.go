// Package client owns the client's side of the API: the file with their
// contexts (which nodes, with which certificate) and the connection to the
// node of a context. It does not know what a node does with a call.
package client
