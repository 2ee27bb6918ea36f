package core

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync/atomic"
)

// Instance is one of the workers of a model: all of them load the same model and
// take the requests of its one queue.
type Instance struct {
	Starter Starter
	// CPUs are those on which the worker computes, ascending, where other models'
	// workers may compute too: runs are ordered by their deadlines. None: they are
	// ordered within the model only.
	CPUs []int
	// Urgency gets the deadline of what the worker computes; may be nil.
	Urgency Urgency
	// Unloaded is called after the worker of a model that is loaded on demand has
	// ended and before the next is started; may be nil.
	Unloaded func()
}

// One is the instance of a model that has no other.
func One(s Starter) []Instance { return []Instance{{Starter: s}} }

// InstanceStatus is what is known of one of a model's workers.
type InstanceStatus struct {
	State    State
	Message  string // why, when the state is Failed or Waiting
	Restarts int    // workers started after the first
	Runs     int64  // that its workers have computed since Add
}

// instance is one of a model's workers, with its supervisor.
type instance struct {
	Instance
	m      *model
	number int // from 0
	work   work
	runs   atomic.Int64 // that ended well
	leads  int          // jobs that lead on it; guarded by queue.mu

	urgent         atomic.Pointer[urgentThreads] // nil: deadlines are not reported
	urgencyProblem atomic.Pointer[string]        // why not, where somebody should be

	life   atomic.Pointer[life] // of the worker that is ready, nil where none is; set with mu held
	kills  chan struct{}        // holds one token when the living worker is to be killed
	unload chan struct{}        // holds one token when nobody needs it any more

	// Guarded by the model's mu.
	state    State
	message  string
	starts   int
	unloads  int   // workers that were ended because nobody needed them
	resting  bool  // nobody needs the worker, and it may not have ended
	unkilled error // why the worker to be killed could not be
}

// set changes the state of one instance, and with it the model's.
func (in *instance) set(state State, message string, l *life) {
	m := in.m
	m.mu.Lock()
	if in.resting && l != nil { // it ends at once
		m.mu.Unlock()
		return
	}
	in.state, in.message = state, message
	in.life.Store(l)
	m.summarize()
	m.mu.Unlock()
	m.changed.broadcast()
	m.notify()
	if l != nil {
		m.queue.mu.Lock()
		m.handOut()
		m.queue.mu.Unlock()
	}
}

// summarize finds the state of a model in those of its instances: one that is ready
// is enough to answer. The caller holds mu.
func (m *model) summarize() {
	byState := func(a, b *instance) int { return cmp.Compare(a.state.rank(), b.state.rank()) }
	m.state, m.message = slices.MinFunc(m.instances, byState).state, ""
	ready := 0
	for _, in := range m.instances {
		switch in.state {
		case Ready:
			ready++
		case m.state:
			m.message = cmp.Or(m.message, in.message)
		}
	}
	if m.state == Ready && ready < len(m.instances) {
		missing := slices.MaxFunc(m.instances, byState)
		m.message = fmt.Sprintf("%d of %d instances are ready; instance %d is %s", ready, len(m.instances), missing.number+1, missing.state)
		if missing.message != "" {
			m.message += ": " + missing.message
		}
	}
}

// rank orders states: a model is in the first of those that its instances are in.
func (s State) rank() int {
	return slices.Index([]State{Ready, Starting, Waiting, Idle, Failed}, s)
}

// living is an instance that is ready, nil where none is.
func (m *model) living() *instance {
	for _, in := range m.instances {
		if in.life.Load() != nil {
			return in
		}
	}
	return nil
}

// runsAtOnce is how many runs an engine of the model computes at once.
func (m *model) runsAtOnce() int { return int(max(m.parallel.Load(), 1)) }

// capacity is how many runs all its ready instances compute at once, at least 1.
func (m *model) capacity() (n int) {
	for _, in := range m.instances {
		if in.life.Load() != nil {
			n += m.runsAtOnce()
		}
	}
	return max(n, 1)
}

// idle is the ready instance that computes least, nil where all compute as much as
// they can. The caller holds queue.mu.
func (m *model) idle() (idle *instance) {
	for _, in := range m.instances {
		if in.leads < m.runsAtOnce() && in.life.Load() != nil && (idle == nil || in.leads < idle.leads) {
			idle = in
		}
	}
	return idle
}

// handOut has those lead that wait, the most urgent first, as long as instances are
// idle. While a batch forms, they wait for that. The caller holds queue.mu.
func (m *model) handOut() {
	q := &m.queue
	for q.forming == nil {
		in := m.idle()
		if in == nil {
			return
		}
		if j := q.seeking; j != nil {
			q.seeking, j.on = nil, in
			in.leads++
			continue
		}
		next := q.next(func(*job) bool { return true })
		if next == nil {
			return
		}
		m.appoint(next, in)
		m.cores.expect(m, next)
		next.wake <- true
	}
}

// appoint has a job lead, on an instance, or looking for one where that is nil. The
// caller holds queue.mu.
func (m *model) appoint(j *job, in *instance) {
	q := &m.queue
	j.leads, j.on = true, in
	q.leaders++
	if in != nil {
		in.leads++
	}
	if q.forming == nil && m.gathers(j) {
		q.forming = j
	}
}

// leave takes the lead from a job. The caller holds mu.
func (q *queue) leave(j *job) {
	q.leaders--
	q.formed(j)
	q.unseat(j)
	j.leads = false
}

// unseat takes its instance from a leader, which may have none. The caller holds mu.
func (q *queue) unseat(j *job) {
	if in := j.on; in != nil {
		if in.leads--; in.leads == 0 {
			in.lower()
		}
		j.on = nil
	}
}

// seat finds a leader a ready instance, where its own has none any more. Where others
// lead, it yields to wait for one of theirs; the last one waits for a worker. A job
// that is refused leaves the queue, and with it those that have waited as long.
func (m *model) seat(j *job) (yielded bool, err error) {
	if j.on != nil && j.on.life.Load() != nil {
		return false, nil
	}
	q := &m.queue
	ctx, cancel := context.WithTimeout(m.ctx, m.restartWait)
	defer cancel()
	q.mu.Lock()
	came := q.came
	q.mu.Unlock()
	for {
		q.mu.Lock()
		if q.seeking == j {
			q.seeking = nil
		}
		if j.on == nil || j.on.life.Load() == nil {
			q.unseat(j)
			m.cores.leave(j) // its turn was on the other one's processors
			if in := m.idle(); in != nil {
				j.on = in
				in.leads++
			}
		}
		switch {
		case j.on != nil:
			q.mu.Unlock()
			return false, nil
		case err != nil:
			if q.drop(j); q.leaders == 1 {
				q.refuse(came, err)
			}
			q.mu.Unlock()
			return false, err
		case q.leaders > 1:
			q.leave(j)
			q.mu.Unlock()
			return true, nil
		}
		q.seeking = j
		q.mu.Unlock()
		err = m.waitReady(ctx)
	}
}
