// Package fastpath owns the quick way of an inference over HTTP/1.1 without
// encryption: it reads and answers plain requests of the Open Inference Protocol
// on a connection of net/http, which sees that connection idle meanwhile and gets
// everything else. The handler is the server's own, so that routes, bounds and
// errors are the same on both ways. It knows no model and no tensor.
package fastpath
