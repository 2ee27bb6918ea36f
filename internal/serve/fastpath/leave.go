package fastpath

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// glance is how old a request is before it is looked whether its client is still
// there.
const glance = time.Millisecond

// requestContext ends when the client closes its connection. Nothing watches the
// connection until somebody asks for Done; before, Err looks.
type requestContext struct {
	context.Context // the values of the connection
	conn            *conn
	body            *body
	begun           time.Time

	mu      sync.Mutex
	err     error
	done    chan struct{} // nil: nobody asked
	watched chan struct{} // closed when the watcher has ended; nil: there was none
	watches bool          // it has not ended
}

// Deadline implements context.Context.
func (*requestContext) Deadline() (time.Time, bool) { return time.Time{}, false }

// Err implements context.Context.
func (r *requestContext) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil && !r.watches && time.Since(r.begun) > glance {
		gone := false
		err := r.conn.raw.Read(func(fd uintptr) bool {
			gone = left(fd)
			return true
		})
		if gone || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			r.cancel()
		}
	}
	return r.err
}

// left reports whether the client of a socket has closed it. One that sends more
// is there.
func left(fd uintptr) bool {
	var one [1]byte
	n, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err == nil && n == 0 || err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
}

// Done implements context.Context.
func (r *requestContext) Done() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done != nil {
		return r.done
	}
	r.done = make(chan struct{})
	if r.err != nil {
		close(r.done)
		return r.done
	}
	r.watched, r.watches = make(chan struct{}), true
	if r.body.here() { // otherwise its deadline counts
		r.conn.renewed = time.Time{}
		_ = r.conn.Conn.SetReadDeadline(time.Time{})
	}
	go r.watch(r.watched)
	return r.done
}

// watch waits until the client leaves, sends more, or the request has ended.
func (r *requestContext) watch(ended chan<- struct{}) {
	defer close(ended)
	gone := false
	err := r.conn.raw.Read(func(fd uintptr) bool {
		var one [1]byte
		_, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			return false
		}
		gone = left(fd)
		return true
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watches = false
	if gone || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		r.cancel()
	}
}

// cancel ends the context. The caller holds mu.
func (r *requestContext) cancel() {
	if r.err != nil {
		return
	}
	r.err = context.Canceled
	if r.done != nil {
		close(r.done)
	}
}

// end ends the context with its request, and the watcher.
func (r *requestContext) end() {
	r.mu.Lock()
	r.cancel()
	watched := r.watched
	r.mu.Unlock()
	if watched != nil {
		r.conn.renewed = time.Time{}
		_ = r.conn.Conn.SetReadDeadline(time.Unix(1, 0))
		<-watched
		_ = r.conn.Conn.SetReadDeadline(time.Time{})
	}
}
