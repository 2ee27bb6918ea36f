package core

import (
	"context"
	"slices"
	"time"
)

// Times are when a request reached each part of its way, zero where it did not.
type Times struct {
	Model, Version string    // as clients name them, once they are known
	Began          time.Time // the client was admitted
	Batch          time.Time // the batch that took it began to form
	Sent           time.Time // the batch went to the worker
	Ended          time.Time // the worker's answer came
	Requests       int       // of the batch
	Rows           int64     // of the batch
	Retried        bool      // another worker was asked before
	Err            error     // with which it ended
}

// Observer follows requests. It is safe for concurrent use.
type Observer interface {
	// Begin is called when a client has been admitted, and for each step of an
	// ensemble. It returns where a request's times go, or nil where nobody wants them.
	Begin(context.Context) *Times
	// End takes the times of a request that Begin wanted, when it has ended.
	End(context.Context, *Times)
}

// Observe has an observer follow all requests. It must be called before the
// first one.
func (r *Registry) Observe(o Observer) { r.observer = o }

// begin returns where the times of a request go, nil for nowhere.
func (r *Registry) begin(ctx context.Context) *Times {
	if r.observer == nil {
		return nil
	}
	return r.observer.Begin(ctx)
}

// end hands the times over. The model is nil where none was found.
func (r *Registry) end(ctx context.Context, t *Times, m *model, err error) {
	if t == nil {
		return
	}
	if t.Err = err; m != nil {
		t.Model, t.Version = m.ServedAs, m.Version
	}
	r.observer.End(ctx, t)
}

// forms notes that a batch begins to form.
func (t *Times) forms() {
	if t != nil {
		t.Batch = time.Now()
	}
}

// formed notes who is in the batch of a leader. The jobs' goroutines wait.
func (leader *job) formed() {
	if !slices.ContainsFunc(leader.batch, func(j *job) bool { return j.times != nil }) {
		return
	}
	var rows int64
	for _, j := range leader.batch {
		rows += j.rows()
	}
	since := time.Now()
	if leader.times != nil {
		since = leader.times.Batch
	}
	for _, j := range leader.batch {
		if t := j.times; t != nil {
			t.Batch, t.Requests, t.Rows, t.Retried = since, len(leader.batch), rows, j.retried
			if t.Began.After(since) { // it came while the batch formed
				t.Batch = t.Began
			}
		}
	}
}

// note sets one time of all jobs in the batch.
func (leader *job) note(which func(*Times) *time.Time) {
	var now time.Time
	for _, j := range leader.batch {
		if j.times == nil {
			continue
		}
		if now.IsZero() {
			now = time.Now()
		}
		*which(j.times) = now
	}
}

func sent(t *Times) *time.Time  { return &t.Sent }
func ended(t *Times) *time.Time { return &t.Ended }
