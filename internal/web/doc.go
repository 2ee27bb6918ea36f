// Package web owns the local web page of a node: the page itself, and a small
// read-only API for it that talks to the node with the certificates of a
// context, which never reach the browser. It listens on loopback only, answers
// nobody without its token, and never changes anything on the node.
package web
