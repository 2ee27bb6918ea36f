package fastpath

import (
	"io"
	"sync/atomic"
	"time"
)

// body is a request's: its first bytes came with the head, the rest is read from
// the connection.
type body struct {
	conn  *conn
	first []byte
	left  int64       // of all
	whole atomic.Bool // nothing is still to come
}

func (b *body) begin(c *conn, first []byte, length int64) {
	b.conn, b.first, b.left = c, first, length
	b.whole.Store(int64(len(first)) == length)
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	if len(b.first) > 0 {
		n := copy(p, b.first)
		b.first = b.first[n:]
		b.left -= int64(n)
		return n, nil
	}
	n, err := b.conn.Conn.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	b.whole.Store(b.left == 0)
	if err == io.EOF && b.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Close implements io.Closer.
func (b *body) Close() error { return nil }

// here reports whether nothing of the body is still to come. It is safe for
// concurrent use.
func (b *body) here() bool { return b.whole.Load() }

// drainWait bounds how long a body is read that the handler did not want.
const drainWait = 5 * time.Second

// drain reads what the handler left.
func (b *body) drain() error {
	if b.here() {
		return nil
	}
	b.conn.renewed = time.Time{}
	if err := b.conn.Conn.SetReadDeadline(time.Now().Add(drainWait)); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, b)
	return err
}
