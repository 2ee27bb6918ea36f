package fastpath

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"oscine.dev/oscine/internal/linux"
)

// answer is the ResponseWriter of a request. It keeps an answer until it is whole
// or large.
type answer struct {
	conn     *conn
	body     *body
	header   http.Header
	status   int
	begun    bool // the head is in out
	out      []byte
	deadline time.Time // of writing
	err      error
}

const (
	// joinBytes is up to where what is written is copied, so that an answer is one
	// system call.
	joinBytes = 64 << 10
	// keepBytes bounds the memory that is kept for the next answer.
	keepBytes = 128 << 10
)

func (a *answer) begin(c *conn, b *body) {
	clear(a.header)
	if a.header == nil {
		a.header = http.Header{}
	}
	out := a.out[:0]
	if cap(out) > keepBytes {
		out = nil
	}
	*a = answer{conn: c, body: b, header: a.header, out: out}
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

// SetReadDeadline is for http.ResponseController. Where all of the body has come
// there is nothing to wait for.
func (a *answer) SetReadDeadline(t time.Time) error {
	if a.body.here() {
		return nil
	}
	a.conn.renewed = time.Time{}
	return a.conn.Conn.SetReadDeadline(t)
}

// SetWriteDeadline is for http.ResponseController. It counts for writes that have
// to wait.
func (a *answer) SetWriteDeadline(t time.Time) error {
	a.deadline = t
	return nil
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	if a.err != nil {
		return 0, a.err
	}
	if !a.begun && a.header["Content-Length"] == nil {
		// The handler is too modest to say how much it writes: it is little.
		a.out = append(a.out, p...)
		return len(p), nil
	}
	a.head(-1)
	if len(a.out)+len(p) <= joinBytes {
		a.out = append(a.out, p...)
		return len(p), nil
	}
	if a.flush(); a.err == nil {
		a.err = a.conn.send(p, a.deadline)
	}
	if a.err != nil {
		return 0, a.err
	}
	return len(p), nil
}

// FlushError is for http.ResponseController.
func (a *answer) FlushError() error {
	if a.begun {
		a.flush()
	}
	return a.err
}

func (a *answer) flush() {
	if a.err == nil && len(a.out) > 0 {
		a.err = a.conn.send(a.out, a.deadline)
	}
	a.out = a.out[:0]
}

// finish sends what is left.
func (a *answer) finish() error {
	if !a.begun {
		body := len(a.out)
		a.head(body)
	}
	a.flush()
	return a.err
}

// head writes the head of the answer, of whose body so many bytes are in out
// already; -1 means none, and that the header tells its length.
func (a *answer) head(body int) {
	if a.begun {
		return
	}
	a.begun = true
	if a.status == 0 {
		a.status = http.StatusOK
	}
	b := a.out
	if body >= 0 {
		b = make([]byte, 0, body+256)
		a.header.Del("Content-Length")
	}
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(a.status), 10)
	b = append(append(append(b, ' '), http.StatusText(a.status)...), "\r\n"...)
	for name, values := range a.header {
		for _, v := range values {
			if strings.IndexByte(v, '\r') >= 0 || strings.IndexByte(v, '\n') >= 0 {
				v = strings.NewReplacer("\r", " ", "\n", " ").Replace(v)
			}
			b = append(append(append(append(b, name...), ": "...), v...), "\r\n"...)
		}
	}
	if body >= 0 {
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), int64(body), 10), "\r\n"...)
	}
	b = append(append(append(b, "Date: "...), a.conn.path.now()...), "\r\n\r\n"...)
	if body > 0 {
		b = append(b, a.out...)
	}
	a.out = b
}

// send writes all of p. A deadline is only set where the client does not take it
// at once.
func (c *conn) send(p []byte, deadline time.Time) error {
	c.out, c.sent = p, 0
	err := c.raw.Write(c.write)
	sent := c.sent
	c.out = nil
	if err != nil {
		return err
	}
	if sent == len(p) {
		return nil
	}
	if err := c.Conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	_, err = c.Conn.Write(p[sent:])
	return errors.Join(err, c.Conn.SetWriteDeadline(time.Time{}))
}

// writeNow writes what the socket has room for. Errors are the next write's.
func (c *conn) writeNow(fd uintptr) bool {
	if n, err := linux.SendNow(int(fd), c.out[:min(len(c.out), joinBytes)]); err == nil {
		c.sent = n
	}
	return true
}
