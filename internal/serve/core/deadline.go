package core

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Urgency tells the kernel how soon the threads of a worker have to be done,
// for models that have an objective. Both are called with one worker's threads
// at a time, often, and must be quick. An error ends their use for that worker.
type Urgency interface {
	// Raise says that the threads have to be done within a time, which is
	// negative for what is late already.
	Raise(threads []int, within time.Duration) error
	// Lower gives the threads back what they have without a request.
	Lower(threads []int) error
}

// rank is what a request waits by: the priority it names, then its deadline.
type rank struct {
	priority int
	due      time.Time // by which it should be answered; it decides the order
	promised time.Time // by when the operator promised an answer; zero: no promise
	expires  time.Time // after which nobody wants it; zero: never
	shared   time.Time // by which it is ordered among other models' requests; zero: it is not
	promise  bool      // shared is the operator's promise
}

// rank gives a request its place. The objective moves it forward; only the
// timeout that the client names makes it expire. A timeout orders the requests
// of one model and no more: were it a promise, any client could take the
// processor from other workloads.
func (m *model) rank(q *Request) rank {
	out := rank{priority: q.Priority, due: q.Arrived.Add(m.Timeout)}
	if out.priority == 0 {
		out.priority = UsualPriority
	}
	if m.Objective > 0 {
		out.promised = q.Arrived.Add(m.Objective)
		out.due = out.promised
	}
	if m.Objective > 0 && m.Objective <= orderedWithin {
		out.shared, out.promise = out.promised, true
	}
	if timeout := cmp.Or(q.Timeout, m.DefaultTimeout); timeout > 0 {
		out.expires = q.Arrived.Add(timeout)
		if out.expires.Before(out.due) {
			out.due = out.expires
		}
		if timeout <= orderedWithin && !out.promise {
			out.shared = out.expires
		}
	}
	return out
}

// wantedWithin is how long after its arrival an answer is late: by the operator's
// promise or the request's own timeout; 0: never.
func (m *model) wantedWithin(q *Request) time.Duration {
	timeout := cmp.Or(q.Timeout, m.DefaultTimeout)
	if timeout == 0 || m.Objective > 0 && m.Objective < timeout {
		return m.Objective
	}
	return timeout
}

// compare is negative where a is served before b.
func (a *rank) compare(b *rank) int {
	return cmp.Or(cmp.Compare(a.priority, b.priority), a.due.Compare(b.due))
}

// unwanted refuses a request that nobody waits for any more.
func (m *model) unwanted(j *job) error {
	switch {
	case !j.rank.expires.IsZero() && !time.Now().Before(j.rank.expires):
		return m.late()
	case j.ctx.Err() != nil:
		return m.left(j.ctx)
	}
	return nil
}

// hopeless refuses a request that cannot be answered in time any more: no run of
// its size was as short recently. Each refusal makes the next a little less
// likely, so that a model which has become faster finds out.
func (m *model) hopeless(j *job) error {
	if j.rank.expires.IsZero() || j.parts != nil {
		return nil
	}
	least := m.costs.least(j.inputBytes())
	if left := time.Until(j.rank.expires); left < least {
		m.costs.doubt(j.inputBytes())
		return fmt.Errorf("%w: the request has %v left and %s takes at least %v; it was not computed", ErrExpired, left.Round(time.Microsecond), m.Name, least.Round(time.Microsecond))
	}
	return nil
}

func (m *model) late() error {
	return fmt.Errorf("%w: the request's timeout passed before %s could take it; it was not computed", ErrExpired, m.Name)
}

// left says why the client whose context ended no longer waits.
func (m *model) left(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return m.late()
	}
	return fmt.Errorf("%w: the client went away before %s could take its request; it was not computed", ErrCanceled, m.Name)
}

// byRank orders jobs by who is served first.
func byRank(a, b *job) int { return a.rank.compare(&b.rank) }

// await waits until the job is told to lead or that it is done. A job that
// expires first, or whose client goes away, leaves the queue, unless the lead
// has been handed to it or a worker has it.
func (m *model) await(j *job) (lead bool) {
	if lead, told := j.soon(); told {
		return lead
	}
	var (
		expires <-chan time.Time
		refused error
	)
	if !j.rank.expires.IsZero() {
		timer := time.NewTimer(time.Until(j.rank.expires))
		defer timer.Stop()
		expires = timer.C
	}
	select {
	case lead = <-j.wake:
		return lead
	case <-expires:
		refused = m.late()
	case <-j.ctx.Done():
		refused = m.left(j.ctx)
	}
	q := &m.queue
	q.mu.Lock()
	i := slices.Index(q.waiting, j)
	if i < 0 || j.leads {
		q.mu.Unlock()
		if i < 0 { // a worker has it, or had it
			m.stopComputing(j.request.Slot, j.request.ID)
		}
		return <-j.wake
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	q.mu.Unlock()
	j.err = refused
	return false
}

// soon waits for as long as it takes a quick model to come to the job, without
// looking whether its client leaves: that may cost a watcher of the connection.
func (j *job) soon() (lead, told bool) {
	timer := time.NewTimer(stoppable)
	defer timer.Stop()
	select {
	case lead = <-j.wake:
		return lead, true
	case <-timer.C:
		return false, false
	}
}

// raise makes the worker's threads as urgent as what was promised for the batch
// that they are about to compute. A kernel that refuses is not asked again until the
// next worker.
func (in *instance) raise(batch []*job) {
	w := in.urgent.Load()
	if w == nil {
		return
	}
	var due time.Time
	for _, j := range batch {
		if by := j.rank.promised; !by.IsZero() && (due.IsZero() || by.Before(due)) {
			due = by
		}
	}
	if due.IsZero() {
		in.lower()
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.raised = true
	in.settle(w, in.Urgency.Raise(w.threads, time.Until(due)))
}

// lower takes back what raise gave.
func (in *instance) lower() {
	w := in.urgent.Load()
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.raised {
		w.raised = false
		in.settle(w, in.Urgency.Lower(w.threads))
	}
}

func (in *instance) settle(w *urgentThreads, err error) {
	if err != nil && in.urgent.CompareAndSwap(w, nil) {
		in.urgencyProblem.Store(new(err.Error()))
	}
}

// urgentThreads are those of the living worker.
type urgentThreads struct {
	threads []int
	mu      sync.Mutex
	raised  bool
}

// makeUrgent finds the threads of a worker that has just connected, where deadlines
// are to be reported.
func (in *instance) makeUrgent(find func() ([]int, error)) {
	in.urgent.Store(nil)
	in.urgencyProblem.Store(nil)
	if in.Urgency == nil {
		return
	}
	threads, err := find()
	if err == nil && len(threads) == 0 {
		err = errors.New("the worker names no thread that computes")
	}
	if err != nil {
		in.urgencyProblem.Store(new(err.Error()))
		return
	}
	in.urgent.Store(&urgentThreads{threads: threads})
}
