package h2c

import (
	"errors"
	"fmt"
	"log"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// answer is the ResponseWriter of a request. What is written is kept until it is much
// or the handler has returned. Trailers are those of http.TrailerPrefix.
type answer struct {
	stream  *stream
	request *http.Request
	header  http.Header
	status  int
	begun   bool // the head was written
	out     []byte
	err     error
}

// joinBytes is how much of an answer is kept.
const joinBytes = 32 << 10

// answer calls the handler.
func (a *answer) answer() {
	st := a.stream
	s := st.session
	defer s.work.Done()
	finished := false
	defer func() {
		if !finished {
			a.panicked(recover())
		}
		st.cancel()
		s.mu.Lock()
		delete(s.streams, st.id)
		s.stopReading()
		left := int64(len(st.body)) // nobody reads it any more
		st.body, st.over = nil, true
		s.mu.Unlock()
		_ = s.giveBack(nil, left) // the connection's own trouble
	}()
	if st.head.large {
		http.Error(a, fmt.Sprintf("the header fields of the request have more than %d bytes", s.frames.MaxHeaderListSize), http.StatusRequestHeaderFieldsTooLarge)
	} else {
		s.handler.ServeHTTP(a, a.request)
	}
	finished = true
	a.finish()
}

// panicked says what a handler died of, and ends its stream.
func (a *answer) panicked(why any) {
	if why != http.ErrAbortHandler {
		print := log.Printf
		if l := a.stream.session.log; l != nil {
			print = l.Printf
		}
		print("http2: panic serving %s: %v\n%s", a.request.RemoteAddr, why, debug.Stack())
	}
	a.drop(http2.ErrCodeInternal)
}

// drop ends a stream before its answer is whole.
func (a *answer) drop(code http2.ErrCode) {
	st := a.stream
	st.session.mu.Lock()
	ended := st.err != nil
	st.session.mu.Unlock()
	if !ended {
		_ = st.session.refuse(st.id, code) // the connection's own trouble
	}
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 && status >= 200 {
		a.status = status
	}
}

// hasBody reports whether the answer may have one.
func (a *answer) hasBody() bool {
	return a.request.Method != http.MethodHead && a.status != http.StatusNoContent && a.status != http.StatusNotModified
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	switch {
	case a.err != nil:
		return 0, a.err
	case a.request.Method == http.MethodHead:
		return len(p), nil
	case !a.hasBody():
		return 0, http.ErrBodyNotAllowed
	case len(a.out)+len(p) <= joinBytes:
		a.out = append(a.out, p...)
		return len(p), nil
	}
	if a.send(a.out, false); a.err == nil {
		a.out = a.out[:0]
		a.send(p, false)
	}
	if a.err != nil {
		return 0, a.err
	}
	return len(p), nil
}

// FlushError is for http.ResponseController.
func (a *answer) FlushError() error {
	a.WriteHeader(http.StatusOK)
	a.send(a.out, false)
	a.out = a.out[:0]
	return a.err
}

// Flush implements http.Flusher.
func (a *answer) Flush() { _ = a.FlushError() }

// SetReadDeadline is for http.ResponseController. It counts for reads that have to
// wait.
func (a *answer) SetReadDeadline(t time.Time) error { return a.set(&a.stream.readBy, t) }

// SetWriteDeadline is for http.ResponseController. It counts for writes that have to
// wait.
func (a *answer) SetWriteDeadline(t time.Time) error { return a.set(&a.stream.writeBy, t) }

func (a *answer) set(deadline *time.Time, t time.Time) error {
	a.stream.session.mu.Lock()
	defer a.stream.session.mu.Unlock()
	*deadline = t
	a.stream.changed.Broadcast()
	return nil
}

// EnableFullDuplex is for http.ResponseController: it always is.
func (a *answer) EnableFullDuplex() error { return nil }

// finish sends what is left.
func (a *answer) finish() {
	a.WriteHeader(http.StatusOK)
	a.send(a.out, true)
	st := a.stream
	st.session.mu.Lock()
	// Some clients, such as curl 7.88, lose the answer if their stream is reset while they
	// send, so they may send what the window has room for.
	comes := st.over || st.head.length >= 0 && st.head.length-st.came <= st.received
	st.session.mu.Unlock()
	switch {
	case a.err != nil:
		a.drop(http2.ErrCodeCancel)
	case !comes:
		a.drop(http2.ErrCodeNo) // RFC 9113, section 8.1
	}
}

// send writes the head, where it was not yet, a part of the body and, at the end,
// trailers: with one system call where the client's windows have room.
func (a *answer) send(body []byte, end bool) {
	if a.err != nil {
		return
	}
	st := a.stream
	s := st.session
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	a.err = st.err
	s.mu.Unlock()
	if a.err != nil {
		return
	}
	var trailers []hpack.HeaderField
	if end {
		trailers = a.trailers()
	}
	if !a.begun {
		a.begun = true
		if end && a.hasBody() && a.header.Get("Content-Length") == "" {
			a.header.Set("Content-Length", strconv.Itoa(len(body)))
		}
		a.err = s.writeHeaders(st.id, a.head(), end && len(body) == 0 && trailers == nil)
	} else if end && len(body) == 0 && trailers == nil {
		a.err = s.framer.WriteData(st.id, true, nil)
	}
	for len(body) > 0 && a.err == nil {
		n, err := st.reserve(int64(len(body)), false)
		if n == 0 && err == nil {
			if a.err = s.flush(); a.err != nil {
				return
			}
			s.writing.Unlock()
			n, err = st.reserve(int64(len(body)), true)
			s.writing.Lock()
		}
		if a.err = err; err == nil {
			a.err = s.framer.WriteData(st.id, end && trailers == nil && int(n) == len(body), body[:n])
			body = body[n:]
		}
		if len(s.out) >= keepBuffer && a.err == nil {
			a.err = s.flush()
		}
	}
	if trailers != nil && a.err == nil {
		a.err = s.writeHeaders(st.id, trailers, true)
	}
	a.err = errors.Join(a.err, s.flush())
}

// head is that of the answer. The caller holds writing.
func (a *answer) head() []hpack.HeaderField {
	fields := append(make([]hpack.HeaderField, 0, 8), hpack.HeaderField{Name: ":status", Value: strconv.Itoa(a.status)})
	for name, values := range a.header {
		if !strings.HasPrefix(name, http.TrailerPrefix) {
			fields = appendFields(fields, name, values)
		}
	}
	if _, ok := a.header["Date"]; !ok {
		s := a.stream.session
		if now := time.Now(); s.second != now.Unix() {
			s.second, s.date = now.Unix(), now.UTC().Format(http.TimeFormat)
		}
		fields = append(fields, hpack.HeaderField{Name: "date", Value: s.date})
	}
	return fields
}

// trailers are those of the answer, nil for none.
func (a *answer) trailers() (fields []hpack.HeaderField) {
	for name, values := range a.header {
		if name, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			fields = appendFields(fields, name, values)
		}
	}
	return fields
}

func appendFields(fields []hpack.HeaderField, name string, values []string) []hpack.HeaderField {
	name = strings.ToLower(name)
	switch name {
	case "connection", "proxy-connection", "transfer-encoding", "upgrade", "keep-alive":
		return fields // RFC 9113, section 8.2.2
	}
	for _, v := range values {
		if strings.ContainsAny(v, "\r\n\x00") {
			v = strings.NewReplacer("\r", " ", "\n", " ", "\x00", " ").Replace(v)
		}
		fields = append(fields, hpack.HeaderField{Name: name, Value: v})
	}
	return fields
}

// writeHeaders writes a block of header fields. The caller holds writing.
func (s *Session) writeHeaders(id uint32, fields []hpack.HeaderField, end bool) error {
	s.block = s.block[:0]
	for _, f := range fields {
		if err := s.encoder.WriteField(f); err != nil {
			return fmt.Errorf("compress header %s: %w", f.Name, err)
		}
	}
	block := []byte(s.block)
	first := block[:min(len(block), maxFrame)]
	err := s.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndStream: end, EndHeaders: len(first) == len(block)})
	for block = block[len(first):]; len(block) > 0 && err == nil; {
		next := block[:min(len(block), maxFrame)]
		block = block[len(next):]
		err = s.framer.WriteContinuation(id, len(block) == 0, next)
	}
	return err
}
