// Package h2c answers HTTP/2 on connections without encryption, of clients that
// begin with its preface (RFC 9113, section 3.3). It owns streams, flow control and
// the order of what is written; frames and header compression are golang.org/x/net's.
// The goroutine of a request writes its answer itself, most often with one system
// call, where net/http's server passes each frame through two other goroutines. It knows no
// protocol above HTTP.
package h2c
