package listen

import (
	"container/list"
	"net"
	"net/http"
	"net/netip"
	"sync"
)

// Limits bound the connections of one listener. A zero is no connection at all.
type Limits struct {
	// Strangers have not passed the handshake yet. Where there are too many the
	// oldest gives way to the newest, so that nobody who is quick is kept out by
	// those who connect and say nothing.
	Strangers int
	// StrangersPerAddress bounds those from one address; see Address.
	StrangersPerAddress int
	// Clients have passed the handshake. Where there are too many the newest is
	// closed.
	Clients int
	// ClientsPerAddress bounds those from one address.
	ClientsPerAddress int
}

// Address is whom a bound on connections per address counts together: an IPv4
// address, or the /64 of an IPv6 address, which is what one customer gets.
func Address(a net.Addr) string { return AddressOf(a.String()) }

// AddressOf is Address of an address and port in their usual form.
func AddressOf(text string) string {
	ap, err := netip.ParseAddrPort(text)
	if err != nil {
		return text
	}
	ip := ap.Addr().Unmap().WithZone("")
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.String()
		}
	}
	return ip.String()
}

// Listener bounds the connections that it accepts. It is safe for concurrent
// use.
type Listener struct {
	net.Listener
	limits Limits

	mu        sync.Mutex
	strangers list.List // of *conn, the oldest first
	clients   int
	from      map[string]*count
}

// count is how many connections one address has.
type count struct{ strangers, clients int }

// New bounds the connections of l.
func New(l net.Listener, limits Limits) *Listener {
	return &Listener{Listener: l, limits: limits, from: map[string]*count{}}
}

// Watch has the server tell when a client has passed its handshake: over TLS
// when it has shown its certificate, otherwise with its first request. It
// replaces the server's ConnState.
func (l *Listener) Watch(server *http.Server) {
	server.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateActive {
			l.known(c)
		}
	}
}

// Accept returns the next connection within the bounds.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		inner, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: inner, of: l, address: Address(inner.RemoteAddr())}
		if l.admit(c) {
			return c, nil
		}
		inner.Close()
	}
}

// admit counts a new stranger, and closes the oldest where there are too many.
func (l *Listener) admit(c *conn) bool {
	l.mu.Lock()
	n := l.from[c.address]
	if n == nil {
		n = &count{}
		l.from[c.address] = n
	}
	if n.strangers >= l.limits.StrangersPerAddress || n.clients >= l.limits.ClientsPerAddress {
		l.forget(c.address, n)
		l.mu.Unlock()
		return false
	}
	n.strangers++
	c.stranger = l.strangers.PushBack(c)
	var oldest *conn
	if l.strangers.Len() > l.limits.Strangers {
		oldest = l.strangers.Front().Value.(*conn)
	}
	l.mu.Unlock()
	if oldest != nil {
		oldest.Close()
	}
	return oldest != c
}

// known makes a stranger a client, or closes it where there are too many.
func (l *Listener) known(c net.Conn) {
	for {
		outer, ok := c.(interface{ NetConn() net.Conn }) // a TLS connection
		if !ok {
			break
		}
		c = outer.NetConn()
	}
	ours, ok := c.(*conn)
	if !ok {
		return
	}
	l.mu.Lock()
	n := l.from[ours.address]
	if ours.stranger == nil || ours.closed {
		l.mu.Unlock()
		return
	}
	l.strangers.Remove(ours.stranger)
	ours.stranger = nil
	n.strangers--
	n.clients++
	l.clients++
	over := l.clients > l.limits.Clients || n.clients > l.limits.ClientsPerAddress
	l.mu.Unlock()
	if over {
		ours.Close()
	}
}

// left forgets a connection.
func (l *Listener) left(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	n := l.from[c.address]
	if c.stranger != nil {
		l.strangers.Remove(c.stranger)
		c.stranger = nil
		n.strangers--
	} else {
		n.clients--
		l.clients--
	}
	l.forget(c.address, n)
}

// forget drops the count of an address that has no connection. The caller
// holds mu.
func (l *Listener) forget(address string, n *count) {
	if *n == (count{}) {
		delete(l.from, address)
	}
}

// conn is one connection. Its fields are guarded by the listener's mu.
type conn struct {
	net.Conn
	of       *Listener
	address  string
	stranger *list.Element // nil once it is a client
	closed   bool
}

// Close closes the connection and makes room for another.
func (c *conn) Close() error {
	c.of.left(c)
	return c.Conn.Close()
}
