package rpc

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"time"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/front"
)

// prefixBytes come before each message: whether it is compressed, and its size.
const prefixBytes = 5

// keepBuffer bounds the buffers that a pooled call keeps.
const keepBuffer = 1 << 20

// call is one call of a method, and memory that later ones use again.
type call struct {
	handler *handler
	w       http.ResponseWriter
	r       *http.Request
	body    front.Body
	arrived time.Time

	message  []byte // as it came, or decompressed
	packed   []byte // compressed
	request  request
	inputs   []core.Input
	outputs  []string
	reply    []byte
	answered bool // a message was written, so the headers are gone
	streamed bool // more messages may follow the one that is written
}

// receive reads the one message of a unary call.
func (c *call) receive() error {
	var prefix [prefixBytes]byte
	head, err := c.body.ReadExactly(prefix[:0], prefixBytes)
	if err != nil {
		return err
	}
	if err := c.finish(head); err != nil {
		return err
	}
	c.body.Done()
	return nil
}

// next reads the next message of a stream, or returns io.EOF.
func (c *call) next() error {
	var prefix [prefixBytes]byte
	if err := c.body.Next(prefix[:]); err != nil {
		return err
	}
	return c.finish(prefix[:])
}

// finish reads the message behind its prefix.
func (c *call) finish(prefix []byte) (err error) {
	n := binary.BigEndian.Uint32(prefix[1:])
	switch prefix[0] {
	case 0:
		c.message, err = c.body.ReadExactly(c.message[:0], int(n))
	case 1:
		encoding := c.r.Header.Get("Grpc-Encoding")
		if encoding != "gzip" && encoding != "deflate" {
			return &failure{unimplemented, fmt.Sprintf("messages compressed as %q cannot be read: send them as gzip, deflate or uncompressed", encoding)}
		}
		if c.packed, err = c.body.ReadExactly(c.packed[:0], int(n)); err == nil {
			c.message, err = c.body.Inflate(c.message[:0], c.packed, encoding)
		}
	default:
		err = fmt.Errorf("%w: a message has an unknown flag", core.ErrInvalid)
	}
	return err
}

// send writes one message in parts, of which the first begins with room for
// the prefix. Each bit of progress renews the client's deadline.
func (c *call) send(parts ...[]byte) error {
	size := -prefixBytes
	for _, part := range parts {
		size += len(part)
	}
	parts[0][0] = 0
	binary.BigEndian.PutUint32(parts[0][1:], uint32(size))
	if !c.answered {
		c.answered = true
		c.w.Header().Set("Content-Type", contentType)
	}
	if c.streamed {
		return front.Write(c.w, parts...)
	}
	return front.WriteLast(c.w, parts...)
}

// deadline gives a call the time that its client has left for it.
func deadline(r *http.Request) (context.Context, context.CancelFunc, time.Duration, error) {
	text := r.Header.Get("Grpc-Timeout")
	if text == "" {
		return r.Context(), func() {}, 0, nil
	}
	left, err := parseTimeout(text)
	if err != nil {
		return nil, nil, 0, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), left)
	return ctx, cancel, left, nil
}

// parseTimeout reads up to eight digits and a unit.
func parseTimeout(text string) (time.Duration, error) {
	units := map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond}
	bad := fmt.Errorf("%w: header grpc-timeout is %.20q", core.ErrInvalid, text)
	if len(text) < 2 || len(text) > 9 {
		return 0, bad
	}
	unit, ok := units[text[len(text)-1]]
	if !ok {
		return 0, bad
	}
	n := int64(0)
	for _, c := range []byte(text[:len(text)-1]) {
		if c-'0' > 9 {
			return 0, bad
		}
		n = 10*n + int64(c-'0')
	}
	const longest = 24 * time.Hour // of what is told apart
	if n > int64(longest/unit) {
		return longest, nil
	}
	return time.Duration(n) * unit, nil
}
