// Package front owns what all serving protocols have in common: how a
// protocol is registered, and how bodies are read and answers written with a
// client that may be slow, large or gone. A protocol is a folder below it that
// turns its own messages into requests to core and core's errors into its own
// codes; it knows no other protocol.
package front
