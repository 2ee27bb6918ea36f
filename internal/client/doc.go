// Package client owns a person's side of the API: the file with their
// contexts (which nodes, with which certificate) and the connection to the
// node of a context. It knows nothing of what a node does with a call.
package client
