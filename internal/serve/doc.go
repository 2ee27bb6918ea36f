// Package serve owns the list of protocols by which a node's models are served.
// The serving itself is in core, each protocol in a folder below front, the connection to an engine's process
// in channel.
package serve
