// Package listen owns who may hold a connection to the node: how many in all,
// from one address, and before they have shown who they are. It knows no protocol above TCP, except for the
// hook by which an HTTP server reports that a client has passed its handshake.
package listen
