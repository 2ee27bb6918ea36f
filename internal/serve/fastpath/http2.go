package fastpath

import (
	"bytes"
	"io"
	"net"
	"time"

	"oscine.dev/oscine/internal/serve/h2c"
)

// speaksHTTP2 reports whether a connection begins as one of HTTP/2 that the server
// takes.
func (c *conn) speaksHTTP2(first []byte) bool {
	p := c.path.server.Protocols
	return !c.known && p != nil && p.UnencryptedHTTP2() && bytes.HasPrefix(first, []byte(h2c.Preface))
}

// serveHTTP2 answers all requests of a connection.
func (c *conn) serveHTTP2(first []byte) error {
	if !c.begin() {
		return net.ErrClosed
	}
	defer c.end(true)
	c.active()
	s := h2c.New(c.ctx, c.path.server, socket{c}, first)
	c.mu.Lock()
	c.session = s
	closed := c.closed
	c.mu.Unlock()
	if closed {
		go s.Shutdown()
	}
	s.Serve()
	return io.EOF
}

// socket is a connection without the fast path.
type socket struct{ *conn }

// Read implements net.Conn.
func (s socket) Read(b []byte) (int, error) { return s.Conn.Read(b) }

// SetReadDeadline implements net.Conn.
func (s socket) SetReadDeadline(t time.Time) error { return s.Conn.SetReadDeadline(t) }

// Close implements net.Conn: what reads and writes ends, and with it the session.
func (s socket) Close() error { return s.Conn.Close() }

// Send implements h2c.Conn.
func (s socket) Send(b []byte, deadline time.Time) error { return s.send(b, deadline) }
