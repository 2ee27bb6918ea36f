package front

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/semaphore"

	"oscine.dev/oscine/internal/serve/core"
)

const (
	// slowClient is how long a client may take for the next step of a body or an
	// answer.
	slowClient = 30 * time.Second
	// renewal is how old a deadline of reading becomes before progress renews it:
	// over HTTP/2 that costs a message to the connection's goroutine.
	renewal = time.Second
	// readStep and writeStep are how much must pass for the client to have made
	// progress.
	readStep  = 64 << 10
	writeStep = 256 << 10
	// memoryWait is how long a request waits for other requests' memory.
	memoryWait = 5 * time.Second
	// usualBudget bounds the bytes of bodies in memory where nothing else does.
	usualBudget = 256 << 20
)

// Errors of reading a body.
var (
	// ErrTooLarge means that a body has more bytes than one request may have.
	ErrTooLarge = errors.New("request too large")
	// ErrEncoding means that a body is compressed in a way that is not read here.
	ErrEncoding = errors.New("unsupported content encoding")
	// ErrSlow means that the client did not send its body in time.
	ErrSlow = errors.New("the client sends too slowly")
	// ErrBusy means that other requests have all the memory for bodies.
	ErrBusy = errdefs.ErrResourceExhausted.WithMessage("too many bytes of requests at work")
)

// newBudget bounds the bytes of all requests' bodies in memory: at most a
// quarter of what the daemon may have, but enough for two of the largest.
func newBudget(maxBody int64) *semaphore.Weighted {
	return semaphore.NewWeighted(max(min(usualBudget, debug.SetMemoryLimit(-1)/4), 2*maxBody))
}

// Body reads the body of one request: not more than one may have, not more than
// all together may have in memory, and from a client that keeps sending.
type Body struct {
	options  *Options
	ctx      context.Context
	reader   io.Reader
	deadline *http.ResponseController
	length   int64 // -1: not known
	most     int64 // bytes that it may have
	held     int64 // of the budget
	taken    int64 // bytes read
	begun    bool  // a deadline is set
	renewed  time.Time
	alone    bool // the deadline is of a stream of its own, and ends with it
}

// Body begins to read the body of r. Close must be called when what was read is
// no longer needed. Its errors are those of this package.
func (o *Options) Body(w http.ResponseWriter, r *http.Request) (Body, error) {
	b := Body{options: o, ctx: r.Context(), reader: r.Body, deadline: http.NewResponseController(w), length: r.ContentLength, most: o.MaxBodyBytes, alone: r.ProtoMajor >= 2}
	if b.length > b.most {
		return b, b.tooLarge()
	}
	switch encoding := Header(r.Header, "Content-Encoding"); strings.ToLower(encoding) {
	case "", "identity":
	case "gzip", "deflate":
		// Their readers look ahead for the header, so they begin with the first read.
		b.reader, b.length = &inflater{from: &stepped{b.deadline, r.Body}, gzip: strings.EqualFold(encoding, "gzip")}, -1
	default:
		return b, fmt.Errorf("%w %q: send the request uncompressed, or as gzip or deflate", ErrEncoding, encoding)
	}
	return b, nil
}

// MaxControl bounds the bytes of a request without tensors, which a generic
// decoder makes many times as many of.
const MaxControl = 64 << 10

// AtMost bounds the bytes that the body may have, where they are fewer than a
// request's may be.
func (b *Body) AtMost(n int64) { b.most = min(b.most, n) }

// Length is how many bytes the body has, or -1 where that is not known.
func (b *Body) Length() int64 { return b.length }

func (b *Body) tooLarge() error {
	return fmt.Errorf("%w: at most %d bytes are accepted", ErrTooLarge, b.most)
}

// unread says why a body was not read. What the client sent wrongly is its fault;
// the rest says itself whose.
func unread(err error) error {
	switch {
	case err == nil, errors.Is(err, ErrTooLarge), errors.Is(err, ErrSlow), errors.Is(err, ErrBusy):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: the request's body ends too early", core.ErrInvalid)
	}
	return fmt.Errorf("%w: the request's body cannot be read: %w", core.ErrInvalid, err)
}

// ReadExactly appends the next n bytes to dst. Memory grows with what arrives,
// not with what is announced. A body that ends before, or is broken, is a
// core.ErrInvalid.
func (b *Body) ReadExactly(dst []byte, n int) ([]byte, error) {
	if int64(n) > b.most-b.taken {
		return dst, b.tooLarge()
	}
	for n > 0 {
		step := min(n, readStep)
		var err error
		if dst, err = b.step(dst, step); err != nil {
			return dst, unread(err)
		}
		n -= step
	}
	return dst, nil
}

// All appends the whole body to dst and ends the reading. A body that ends before
// its announced end, or is broken, is a core.ErrInvalid.
func (b *Body) All(dst []byte) ([]byte, error) {
	defer b.Done()
	if b.length >= 0 {
		return b.ReadExactly(dst, int(b.length))
	}
	for {
		step := int(min(readStep, b.most-b.taken+1))
		var err error
		dst, err = b.step(dst, step)
		switch {
		case b.taken > b.most:
			return dst, b.tooLarge()
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return dst, nil
		case err != nil:
			return dst, unread(err)
		}
	}
}

// step appends up to n bytes, of which a client must send some in time.
func (b *Body) step(dst []byte, n int) ([]byte, error) {
	if err := b.hold(int64(n)); err != nil {
		return dst, err
	}
	b.renew()
	from := len(dst)
	if cap(dst)-from < n {
		dst = append(dst, make([]byte, max(n, from))...)[:from]
	}
	got, err := io.ReadFull(b.reader, dst[from:from+n])
	b.taken += int64(got)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%w: %d bytes came within %v", ErrSlow, got, slowClient)
	}
	return dst[:from+got], err
}

// renew gives the client time for the next step.
func (b *Body) renew() {
	if now := time.Now(); !b.begun || now.Sub(b.renewed) > renewal {
		b.begun, b.renewed = b.deadline.SetReadDeadline(now.Add(slowClient)) == nil, now
	}
}

// Next begins with the next message of a stream of them. It gives back the
// memory of the last, waits for the next as long as the client stays, and fills
// head with its first bytes; meanwhile the stream is no request at work. It
// returns io.EOF where the client sends no more, and a core.ErrInvalid where a
// message ends too early.
func (b *Body) Next(head []byte) error {
	b.Close()
	b.untimed()
	b.taken = 0
	b.options.work.Add(-1)
	_, err := io.ReadFull(b.reader, head[:1])
	busy := begin(b.options.work)
	switch {
	case errors.Is(err, io.EOF):
		return io.EOF
	case err != nil:
		return unread(err)
	}
	if busy != nil {
		return busy
	}
	b.renew()
	_, err = io.ReadFull(b.reader, head[1:])
	return unread(err)
}

// Inflate appends to dst what data, a message that was read, holds compressed as
// gzip or deflate. It counts as if it had been read.
func (b *Body) Inflate(dst, data []byte, encoding string) ([]byte, error) {
	in := inflater{from: bytes.NewReader(data), gzip: encoding == "gzip"}
	for {
		step := int(min(readStep, b.most-b.taken+1))
		if err := b.hold(int64(step)); err != nil {
			return dst, err
		}
		from := len(dst)
		dst = slices.Grow(dst, step)
		n, err := io.ReadFull(&in, dst[from:from+step])
		dst = dst[:from+n]
		b.taken += int64(n)
		switch {
		case b.taken > b.most:
			return dst, b.tooLarge()
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return dst, nil
		case err != nil:
			return dst, unread(err)
		}
	}
}

// hold takes what n more bytes need out of the budget of all requests.
func (b *Body) hold(n int64) error {
	if b.taken+n <= b.held {
		return nil
	}
	if !b.options.budget.TryAcquire(n) {
		ctx, cancel := context.WithTimeout(b.ctx, memoryWait)
		defer cancel()
		if err := b.options.budget.Acquire(ctx, n); err != nil {
			return fmt.Errorf("%w: send it again later", ErrBusy)
		}
	}
	b.held += n
	return nil
}

// Done ends the reading, so that no deadline of it ends what follows. Over
// HTTP/2 nothing follows on the same stream: it costs nothing there.
func (b *Body) Done() {
	if !b.alone {
		b.untimed()
	}
}

// untimed lets the client take as long as it likes.
func (b *Body) untimed() {
	if b.begun {
		b.begun = false
		_ = b.deadline.SetReadDeadline(time.Time{})
	}
}

// Close gives the memory back to the budget.
func (b *Body) Close() {
	b.Done()
	if b.held > 0 {
		b.options.budget.Release(b.held)
		b.held = 0
	}
}

// stepped renews the client's deadline for each bit of a compressed body, of
// which one step may need many.
type stepped struct {
	deadline *http.ResponseController
	r        io.Reader
}

func (s *stepped) Read(p []byte) (int, error) {
	_ = s.deadline.SetReadDeadline(time.Now().Add(slowClient))
	return s.r.Read(p[:min(len(p), readStep)])
}

// inflater decompresses, from the first read on.
type inflater struct {
	from io.Reader
	gzip bool
	r    io.Reader
}

func (f *inflater) Read(p []byte) (int, error) {
	if f.r == nil {
		var err error
		if f.gzip {
			f.r, err = gzip.NewReader(f.from)
		} else {
			f.r, err = zlib.NewReader(f.from) // what HTTP calls deflate: RFC 9110, section 8.4.1.2
		}
		if err != nil {
			return 0, broken(err)
		}
	}
	n, err := f.r.Read(p)
	return n, broken(err)
}

// broken keeps the end of cut compressed data from being taken for the end of
// the body.
func broken(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the compressed body is cut short")
	}
	return err
}

// Send writes an answer whose headers are set. Each bit of progress renews the
// client's deadline; a client that makes none loses its connection.
func Send(w http.ResponseWriter, status int, parts ...[]byte) {
	size := 0
	for _, part := range parts {
		size += len(part)
	}
	w.Header()["Content-Length"] = []string{strconv.Itoa(size)}
	if status != http.StatusOK {
		w.WriteHeader(status)
	}
	_ = Write(w, parts...) // the client is gone: there is nobody to send an error to
}

// Write writes a part of an answer and waits until it is on its way. Each bit
// of progress renews the client's deadline; a client that makes none loses its
// connection, or over HTTP/2 its stream.
func Write(w http.ResponseWriter, parts ...[]byte) error {
	deadline := http.NewResponseController(w)
	timed, err := write(w, deadline, parts)
	if err != nil || !timed {
		return err
	}
	// What is not flushed here is written after this deadline's end.
	if err := deadline.Flush(); err != nil {
		return err
	}
	return deadline.SetWriteDeadline(time.Time{})
}

// WriteLast writes all that is left of an answer over HTTP/2, whose stream and
// deadline end with the handler.
func WriteLast(w http.ResponseWriter, parts ...[]byte) error {
	_, err := write(w, http.NewResponseController(w), parts)
	return err
}

// write reports whether it has set a deadline.
func write(w http.ResponseWriter, deadline *http.ResponseController, parts [][]byte) (timed bool, err error) {
	timed = deadline.SetWriteDeadline(time.Now().Add(slowClient)) == nil
	for _, part := range parts {
		for len(part) > writeStep {
			if _, err := w.Write(part[:writeStep]); err != nil {
				return timed, err
			}
			part = part[writeStep:]
			_ = deadline.SetWriteDeadline(time.Now().Add(slowClient))
		}
		if _, err := w.Write(part); err != nil {
			return timed, err
		}
	}
	return timed, nil
}
