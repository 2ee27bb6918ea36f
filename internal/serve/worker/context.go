package worker

import (
	"context"
	"sync"
	"time"

	"oscine.dev/oscine/internal/serve/channel"
)

// runContext is the context of one run: done when each request of it has been
// cancelled or is too late. It costs nothing until somebody asks for Done.
type runContext struct {
	conn  *conn
	calls []call

	mu    sync.Mutex
	done  chan struct{} // nil: nobody asked
	timer *time.Timer
}

var _ context.Context = (*runContext)(nil)

// Value implements context.Context.
func (*runContext) Value(any) any { return nil }

// Deadline implements context.Context: the latest of the requests'.
func (r *runContext) Deadline() (deadline time.Time, ok bool) {
	for i := range r.calls {
		if r.calls[i].deadline.IsZero() {
			return time.Time{}, false
		}
		if r.calls[i].deadline.After(deadline) {
			deadline = r.calls[i].deadline
		}
	}
	return deadline, true
}

// Err implements context.Context.
func (r *runContext) Err() error {
	if r.conn.gone.Load() {
		return context.Canceled
	}
	var err error
	for i := range r.calls {
		if err = r.calls[i].over(r.conn.peer); err == nil {
			return nil
		}
	}
	return err
}

// Done implements context.Context.
func (r *runContext) Done() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done == nil {
		r.done = make(chan struct{})
		r.conn.watch(r)
		if deadline, ok := r.Deadline(); ok {
			r.timer = time.AfterFunc(time.Until(deadline), r.look)
		}
		if r.Err() != nil {
			close(r.done)
		}
	}
	return r.done
}

// look closes done when it is time.
func (r *runContext) look() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done == nil || r.Err() == nil {
		return
	}
	select {
	case <-r.done:
	default:
		close(r.done)
	}
}

// end releases what Done took. The context is not used afterwards.
func (r *runContext) end() {
	r.mu.Lock()
	watched, timer := r.done != nil, r.timer
	r.mu.Unlock()
	if timer != nil {
		timer.Stop()
	}
	if watched {
		r.conn.unwatch(r)
		r.mu.Lock()
		r.done, r.timer = nil, nil
		r.mu.Unlock()
	}
}

// over returns why the answer to a call is no longer needed, or nil.
func (c *call) over(p *channel.Peer) error {
	switch {
	case p.Cancelled(c.request):
		return context.Canceled
	case !c.deadline.IsZero() && !time.Now().Before(c.deadline):
		return context.DeadlineExceeded
	}
	return nil
}
