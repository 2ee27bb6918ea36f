package fastpath

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"syscall"
	"time"

	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/serve/h2c"
	"oscine.dev/oscine/internal/serve/region"
)

// conn is a connection of net/http. Whenever that waits for the next request, in
// Read, plain ones are answered here.
type conn struct {
	net.Conn
	raw    syscall.RawConn
	path   *path
	ctx    context.Context // of net/http, for its values
	remote string

	// passing is set while net/http reads a request, from its first byte until it
	// waits for the next one, or for good.
	passing bool
	left    int64     // bytes of that request that are still to come; -1: net/http keeps the connection for good
	pending []byte    // was read for net/http, which has not asked for it yet
	known   bool      // ConnState knows that the client is active
	renewed time.Time // when the deadline of waiting was last set; zero: it is another's
	head    head      // of the last request: clients repeat them

	out   []byte // of write
	sent  int
	write func(fd uintptr) bool

	receiver *linux.Receiver // of the first bytes of requests
	regions  *region.Regions // shared memory of the client; nil: it can have none

	mu      sync.Mutex
	busy    bool // a request is answered here
	closed  bool
	session *h2c.Session // nil: it does not speak HTTP/2, or net/http answers it
}

// NetConn is the connection as it was accepted.
func (c *conn) NetConn() net.Conn { return c.Conn }

// Close closes the connection, once the request that is answered here has been.
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.session != nil {
		go c.session.Shutdown() // it may have to wait for the client
	}
	if c.busy {
		return nil
	}
	return c.close()
}

func (c *conn) close() error {
	if c.regions != nil {
		c.regions.Close()
	}
	return c.Conn.Close()
}

// Read answers plain requests by itself, and returns what comes of others.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.pending) > 0 {
		n := copy(p, c.pending)
		c.pending, c.passing = c.pending[n:], true
		return n, nil
	}
	if c.passing {
		return c.rest(p)
	}
	into := p
	if len(p) < leastRead { // net/http looks first whether the client speaks HTTP/2
		into = make([]byte, leastRead)
	}
	for {
		c.renew()
		n, err := c.receive(into)
		if err != nil {
			return copy(p, into[:n]), err
		}
		if c.speaksHTTP2(into[:n]) {
			return 0, c.serveHTTP2(into[:n])
		}
		size, ok := c.head.parse(into[:n])
		rest := n - size
		if !ok || int64(rest) > c.head.length || c.head.length > maxBody {
			c.pass(into[:n])
			some := min(n, len(p))
			if len(p) < leastRead {
				copy(p, into)
				c.pending = into[some:n]
			}
			return some, nil
		}
		if err := c.answer(into[size:n]); err != nil {
			return 0, err
		}
	}
}

// leastRead is how much is read at once, as net/http does.
const leastRead = 4 << 10

// maxBody bounds the bodies that are read here. Where the handler does not want
// one, it is read all the same, so that the client can read the answer.
const maxBody = 256 << 10

// pass lets net/http read a request, in the time that it gives for its head.
func (c *conn) pass(first []byte) {
	c.passing, c.left = true, max(requestSize(first)-int64(len(first)), -1)
	if wait := c.path.server.ReadHeaderTimeout; c.known && wait > 0 {
		c.renewed = time.Time{}
		_ = c.Conn.SetReadDeadline(time.Now().Add(wait))
	}
}

// rest reads on for net/http: nothing beyond its request, where the end of that is
// known. Once that is whole, net/http reads to learn whether the client leaves.
func (c *conn) rest(p []byte) (int, error) {
	if c.left < 0 {
		return c.Conn.Read(p)
	}
	if c.left > 0 {
		n, err := c.Conn.Read(p[:min(int64(len(p)), c.left)])
		c.left -= int64(n)
		return n, err
	}
	gone := false
	err := c.raw.Read(func(fd uintptr) bool {
		gone = left(fd)
		return gone
	})
	if gone {
		err = io.EOF
	}
	return 0, err
}

// renewal is how old the deadline of waiting becomes before it is set again.
const renewal = time.Second

// renew gives a client that sends requests time for the next one.
func (c *conn) renew() {
	if !c.known {
		return // net/http has set one
	}
	idle := c.path.server.IdleTimeout
	if now := time.Now(); now.Sub(c.renewed) > renewal {
		c.renewed = now
		until := time.Time{}
		if idle > 0 {
			until = now.Add(idle)
		}
		_ = c.Conn.SetReadDeadline(until)
	}
}

// begin reports whether a request may be answered here.
func (c *conn) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.path.ending.Load() {
		return false
	}
	c.path.working.Add(1)
	c.busy = true
	return true
}

// end closes a connection that was to be closed meanwhile, or whose client and
// server no longer agree on where the next request begins.
func (c *conn) end(lost bool) bool {
	c.path.working.Add(-1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = false
	if c.closed || lost {
		c.closed = true
		_ = c.close()
	}
	return !c.closed
}

// active tells the server of the first request.
func (c *conn) active() {
	if c.known {
		return
	}
	c.known = true
	if c.path.state != nil {
		c.path.state(c, http.StateActive)
	}
}

// exchange is the memory of one request, which later ones use again.
type exchange struct {
	url    url.URL
	body   body
	answer answer
}

// answer has the handler answer the request in c.head, whose body begins with
// first.
func (c *conn) answer(first []byte) (err error) {
	if !c.begin() {
		return net.ErrClosed
	}
	lost := true // also where the handler panics
	defer func() {
		if !c.end(lost) && err == nil {
			err = net.ErrClosed
		}
	}()
	c.active()
	x, ok := c.path.unused.Get().(*exchange)
	if !ok {
		x = new(exchange)
	}
	h := &c.head
	x.url = url.URL{Path: h.path}
	x.body.begin(c, first, h.length)
	x.answer.begin(c, &x.body)
	ctx := &requestContext{Context: c.ctx, conn: c, body: &x.body, begun: time.Now()}
	defer ctx.end()
	request := (&http.Request{
		Method: http.MethodPost, URL: &x.url, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: h.header,
		Body: &x.body, ContentLength: h.length, Host: h.host, RemoteAddr: c.remote, RequestURI: h.path,
	}).WithContext(ctx)
	c.path.server.Handler.ServeHTTP(&x.answer, request)
	if err = x.answer.finish(); err == nil {
		lost = x.body.drain() != nil
	}
	ctx.end() // from now on it knows nothing of x
	c.path.unused.Put(x)
	return err
}
