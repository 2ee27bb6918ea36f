package h2c

import (
	"context"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// stream is a request and its answer.
type stream struct {
	session *Session
	id      uint32
	head    *head
	cancel  context.CancelFunc // of the request's context

	// Guarded by the session's mu.
	changed  sync.Cond // of what follows
	body     []byte    // came and was not read yet
	came     int64     // bytes in all
	over     bool      // nothing more comes
	window   int64     // bytes that may be sent
	received int64     // bytes that may be received
	owed     int64     // bytes that were read and that the client does not know of
	err      error     // why nothing is read or written any more
	readBy   time.Time
	writeBy  time.Time
}

// reset ends the stream for its handler. The caller holds mu.
func (st *stream) reset(err error) {
	if st.err == nil {
		st.err = err
	}
	st.cancel()
	st.changed.Broadcast()
}

// wait waits for a change, or until a time. The caller holds mu.
func (st *stream) wait(until time.Time) error {
	if !until.IsZero() {
		left := time.Until(until)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		defer time.AfterFunc(left, func() {
			st.session.mu.Lock()
			defer st.session.mu.Unlock()
			st.changed.Broadcast()
		}).Stop()
	}
	st.changed.Wait()
	return nil
}

// Read implements io.Reader, of the request's body.
func (st *stream) Read(p []byte) (int, error) {
	s := st.session
	s.mu.Lock()
	for len(st.body) == 0 && !st.over && st.err == nil {
		if err := st.wait(st.readBy); err != nil {
			s.mu.Unlock()
			return 0, err
		}
	}
	n := copy(p, st.body)
	if st.body = st.body[n:]; len(st.body) == 0 {
		st.body = nil
	}
	err := st.err
	if err == nil && n == 0 && len(p) > 0 {
		err = io.EOF
	}
	s.mu.Unlock()
	if n == 0 {
		return 0, err
	}
	return n, s.giveBack(st, int64(n))
}

// Close implements io.Closer.
func (st *stream) Close() error { return nil }

// reserve takes up to n bytes of the windows; without patience it may take none.
func (st *stream) reserve(n int64, patient bool) (int64, error) {
	s := st.session
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if st.err != nil {
			return 0, st.err
		}
		if most := min(n, s.window, st.window, s.frame); most > 0 {
			s.window -= most
			st.window -= most
			return most, nil
		}
		if !patient {
			return 0, nil
		}
		if err := st.wait(st.writeBy); err != nil {
			return 0, err
		}
	}
}

// headers begins a request, or ends the body of one.
func (s *Session) headers(f *http2.MetaHeadersFrame) error {
	id := f.StreamID
	if id%2 == 0 {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	s.mu.Lock()
	if id <= s.last {
		st := s.streams[id]
		fine := st != nil && !st.over && f.StreamEnded() && (st.head.length < 0 || st.came == st.head.length)
		if fine {
			st.over = true
			st.changed.Broadcast()
		}
		s.mu.Unlock()
		switch {
		case fine, st == nil: // it was answered meanwhile
			return nil
		default:
			return s.refuse(id, http2.ErrCodeProtocol)
		}
	}
	s.last = id
	// Some are answered, and their goroutines about to end.
	full := len(s.streams) >= 2*maxStreams || s.leaving
	s.mu.Unlock()
	if full {
		return s.refuse(id, http2.ErrCodeRefusedStream)
	}
	if s.head == nil || !s.head.same(f) {
		head, err := newHead(f)
		if err != nil {
			return s.refuse(id, http2.ErrCodeProtocol)
		}
		s.head = head
	}
	if f.StreamEnded() && s.head.length > 0 {
		return s.refuse(id, http2.ErrCodeProtocol)
	}
	st := &stream{session: s, id: id, head: s.head, over: f.StreamEnded(), received: receiveWindow}
	st.changed.L = &s.mu
	ctx, cancel := context.WithCancel(s.ctx)
	st.cancel = cancel
	a := &answer{stream: st, request: st.head.request(ctx, st), header: http.Header{}}
	s.mu.Lock()
	st.window = s.initial
	s.streams[id] = st
	s.mu.Unlock()
	s.work.Add(1)
	select {
	case s.next <- a:
	default:
		go s.answer(a)
	}
	return nil
}

// answer has the handler answer requests for as long as few others wait for one.
func (s *Session) answer(a *answer) {
	for a != nil {
		a.answer()
		s.mu.Lock()
		waits := s.spare < spareWorkers
		if waits {
			s.spare++
		}
		s.mu.Unlock()
		if !waits {
			return
		}
		select {
		case a = <-s.next:
		case <-s.ended:
			a = nil
		}
		s.mu.Lock()
		s.spare--
		s.mu.Unlock()
	}
}
