package h2c

import (
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// wire is a Conn over a socket.
type wire struct{ net.Conn }

func (w wire) Send(p []byte, deadline time.Time) error {
	if err := w.SetWriteDeadline(deadline); err != nil {
		return err
	}
	_, err := w.Write(p)
	return err
}

// rig serves HTTP/2 on a port.
type rig struct {
	t      *testing.T
	server *http.Server
	addr   string
	mu     sync.Mutex
	all    []*Session
	ended  sync.WaitGroup
	log    bytes.Buffer
}

func serve(t *testing.T, handler http.HandlerFunc) *rig {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, addr: l.Addr().String()}
	r.server = &http.Server{Handler: handler, IdleTimeout: 10 * time.Second, ErrorLog: log.New(&r.log, "", 0)}
	r.ended.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.ended.Go(func() { r.session(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.mu.Lock()
		for _, s := range r.all {
			s.conn.Close()
		}
		r.mu.Unlock()
		r.ended.Wait() // all handlers have returned
	})
	return r
}

func (r *rig) session(c net.Conn) {
	defer c.Close()
	first := make([]byte, len(Preface))
	if _, err := io.ReadFull(c, first); err != nil {
		return
	}
	s := New(context.Background(), r.server, wire{c}, first)
	r.mu.Lock()
	r.all = append(r.all, s)
	r.mu.Unlock()
	s.Serve()
}

// client is net/http's.
func (r *rig) client() *http.Client {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &p}
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// raw is a client that sends what frames it likes.
type raw struct {
	*http2.Framer
	t    *testing.T
	conn net.Conn
	enc  *hpack.Encoder
	buf  bytes.Buffer
}

func (r *rig) dial(settings ...http2.Setting) *raw {
	r.t.Helper()
	c := r.connect()
	c.must(c.WriteSettings(settings...))
	return c
}

// connect sends the preface alone.
func (r *rig) connect() *raw {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	c := &raw{Framer: http2.NewFramer(conn, conn), t: r.t, conn: conn}
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.enc = hpack.NewEncoder(&c.buf)
	if _, err := io.WriteString(conn, Preface); err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (c *raw) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// request sends the head of a POST, with more fields.
func (c *raw) request(id uint32, end bool, more ...string) {
	c.t.Helper()
	fields := append([]string{":method", "POST", ":scheme", "http", ":authority", "node", ":path", "/"}, more...)
	c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.fields(fields...), EndHeaders: true, EndStream: end}))
}

func (c *raw) fields(pairs ...string) []byte {
	c.buf.Reset()
	for i := 0; i < len(pairs); i += 2 {
		_ = c.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}) // to memory
	}
	return c.buf.Bytes()
}

// until reads frames up to one that fits.
func (c *raw) until(fits func(http2.Frame) bool) http2.Frame {
	c.t.Helper()
	for {
		f, err := c.ReadFrame()
		if err != nil {
			c.t.Fatal(err)
		}
		if fits(f) {
			return f
		}
	}
}

// reset waits for the end of a stream by an error.
func (c *raw) reset(id uint32, want http2.ErrCode) {
	c.t.Helper()
	f := c.until(func(f http2.Frame) bool {
		_, ok := f.(*http2.RSTStreamFrame)
		_, lost := f.(*http2.GoAwayFrame)
		return ok && f.Header().StreamID == id || lost
	})
	if rst, ok := f.(*http2.RSTStreamFrame); !ok || rst.ErrCode != want {
		c.t.Fatalf("got %v, want stream %d reset with %v", f, id, want)
	}
}

// ended waits for the end of an answer.
func (c *raw) ended(id uint32) {
	c.t.Helper()
	c.until(func(f http2.Frame) bool {
		h := f.Header()
		return h.StreamID == id && h.Flags.Has(http2.FlagDataEndStream) && (h.Type == http2.FrameData || h.Type == http2.FrameHeaders)
	})
}
