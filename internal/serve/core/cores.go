package core

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// orderedWithin is how soon after its arrival a request must be due to be ordered
// among the requests of other models. What has more time than that waits for no
// other model, and no other model for it: the kernel divides the processors.
const orderedWithin = time.Second

// cores orders the runs of models that compute on the same processors: a request
// with time to spare waits for those that are due earlier. It is held no longer
// than until it has to begin in order to be in time beside all others, so nobody
// comes late because of it who would not without it.
type cores struct {
	mu    sync.Mutex
	turns []*turn // that wait or compute
	came  uint64  // turns so far
}

// turn is one run's place in the order.
type turn struct {
	cpus       []int
	threads    int
	precedence int
	promised   bool      // the operator promised that it is done by due; else its client wants it by then
	due        time.Time // of the most urgent request that is known to be in the run
	number     uint64
	waits      bool
	may        chan struct{} // gets a token when it may compute, or something has changed
}

// before reports whether a turn comes before another one. A time that only a
// client names orders it behind all that was promised.
func (t *turn) before(u *turn) bool {
	if t.precedence != u.precedence {
		return t.precedence > u.precedence
	}
	if t.promised != u.promised {
		return t.promised
	}
	return cmp.Or(t.due.Compare(u.due), cmp.Compare(t.number, u.number)) < 0
}

// meets reports whether two turns share a processor. Their lists ascend.
func (t *turn) meets(u *turn) bool {
	for a, b := t.cpus, u.cpus; len(a) > 0 && len(b) > 0; {
		switch {
		case a[0] == b[0]:
			return true
		case a[0] < b[0]:
			a = a[1:]
		default:
			b = b[1:]
		}
	}
	return false
}

// held reports whether those before a turn leave it no processor, and how many
// turns share its processors, with itself. The caller holds mu.
func (c *cores) held(t *turn) (held bool, sharing int) {
	taken := 0
	for _, u := range c.turns {
		if !t.meets(u) {
			continue
		}
		sharing++
		if u.before(t) {
			taken += u.threads
		}
	}
	return taken > 0 && taken+t.threads > len(t.cpus), sharing
}

// ordered reports whether a run that the job leads is ordered among those of other
// models.
func (j *job) ordered() bool { return !j.rank.shared.IsZero() && j.parts == nil }

// expect gives the run that a job is to lead its place, which waits.
func (c *cores) expect(m *model, j *job) {
	cpus := j.on.CPUs
	if len(cpus) == 0 || !j.ordered() {
		return
	}
	m.mu.Lock()
	threads := 1
	if m.metadata != nil {
		threads = max(1, min(m.metadata.Threads, len(cpus)))
	}
	m.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.came++
	j.turn = &turn{cpus: cpus, threads: threads, precedence: m.Precedence, promised: j.rank.promise, due: j.rank.shared, number: c.came, waits: true, may: make(chan struct{}, 1)}
	c.turns = append(c.turns, j.turn)
}

// enter waits until the run that a job leads is next on its processors, or the job
// has yielded the lead to one that is not ordered. A job whose client leaves
// meanwhile is refused.
func (c *cores) enter(m *model, j *job) (yielded bool, err error) {
	if j.turn == nil {
		c.expect(m, j)
	}
	t := j.turn
	if t == nil {
		return false, nil
	}
	c.mu.Lock()
	for {
		held, sharing := c.held(t)
		// Beside all others, its run takes that many times as long.
		patience := time.Until(t.due) - time.Duration(sharing)*time.Duration(m.usual.Load())
		t.waits = held && patience > 0
		c.mu.Unlock()
		if !t.waits {
			return false, nil
		}
		if m.yield(j) {
			return true, nil
		}
		timer := time.NewTimer(patience)
		select {
		case <-t.may:
		case <-timer.C:
		case <-j.ctx.Done():
			timer.Stop()
			return false, m.left(j.ctx)
		}
		timer.Stop()
		c.mu.Lock()
	}
}

// hasten tells the run that a model is about to begin of one more request, which
// may be more urgent, or not ordered: to that one the leader yields.
func (c *cores) hasten(leader, j *job) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := leader.turn
	if t == nil || !t.waits {
		return
	}
	if !j.ordered() {
		t.wake()
		return
	}
	if t.promised && !j.rank.promise || t.promised == j.rank.promise && !j.rank.shared.Before(t.due) {
		return
	}
	t.promised, t.due = j.rank.promise, j.rank.shared
	c.wake()
}

// leave ends a turn, of which there may be none.
func (c *cores) leave(j *job) {
	if j.turn == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turns = slices.DeleteFunc(c.turns, func(t *turn) bool { return t == j.turn })
	j.turn = nil
	c.wake()
}

// wake lets those look again that wait. The caller holds mu.
func (c *cores) wake() {
	for _, t := range c.turns {
		if t.waits {
			t.wake()
		}
	}
}

// wake lets the one look again that waits.
func (t *turn) wake() {
	select {
	case t.may <- struct{}{}:
	default:
	}
}
