package isolate

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/isolate/urgency"
	"oscine.dev/oscine/internal/linux"
)

// nearby is the longest deadline that gets a priority of the stock scheduler.
// What computes under one keeps the daemon from handing out other requests
// meanwhile; work with more time than that is well served by its class. On one
// CPU with as many long requests as it can take, of requests due in 3 ms 50 %
// came late when the long ones had a priority too, 2 % when not.
const nearby = 20 * time.Millisecond

// ErrUnbounded is returned by Raise on a host where nothing could bound the
// time that is spent under a priority.
var ErrUnbounded = errors.New("no priority by deadlines: this host has no cgroup version 2, by which its time is bounded")

// Priority lends the threads of one interactive workload a priority by their
// deadlines, for as much CPU time as the workload was promised: while it uses
// more than that, it competes by its weight like its neighbours. The bound is
// enforced by Watch. It is safe for concurrent use.
type Priority struct {
	i  *Isolator
	id string

	mu     sync.Mutex
	raised []int // threads that have a priority now
	asked  bool  // since the guard last looked
	spent  bool  // the workload has used what it was promised
	budget budget
}

// Priority returns what lends a workload's threads a priority. It may be called
// before Prepare, and ends with Release.
func (i *Isolator) Priority(id string) *Priority {
	i.prioritiesMu.Lock()
	defer i.prioritiesMu.Unlock()
	p := i.priorities[id]
	if p == nil {
		p = &Priority{i: i, id: id}
		i.priorities[id] = p
	}
	return p
}

func (i *Isolator) forgetPriority(id string) {
	i.prioritiesMu.Lock()
	defer i.prioritiesMu.Unlock()
	delete(i.priorities, id)
}

// Raise tells the kernel within what time threads have to be done: the stock
// scheduler by a FIFO priority where it is near (see package urgency), the
// sched_ext scheduler by their deadline. Threads that have ended are no error.
// Beyond the workload's budget it does nothing. Errors: ErrUnbounded, and the
// kernel's.
func (p *Priority) Raise(threads []int, within time.Duration) error {
	if p.i.host.cgroups == "" {
		return ErrUnbounded
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = true
	if p.spent {
		return nil
	}
	p.raised = threads
	return p.i.setDeadline(threads, within)
}

// Lower takes back what Raise set.
func (p *Priority) Lower(threads []int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.raised = nil
	return p.i.clearDeadline(threads)
}

// enforce takes the priority back from a workload that has used what it was
// promised, and lets it have one again when that has been made up for. While
// no priority is asked for it costs nothing.
func (p *Priority) enforce(now time.Time, h *holding) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.asked {
		return
	}
	p.asked = len(p.raised) > 0
	if h.spec.Exclusive {
		return // on CPUs of its own it takes time from no one
	}
	text, err := p.i.cg.get(h.group(), "cpu.stat")
	if err != nil {
		return // it has ended
	}
	used := time.Duration(numbers(text)["usage_usec"]) * time.Microsecond
	p.spent = p.budget.spend(now, used, h.spec.MilliCPU)
	if p.spent && len(p.raised) > 0 {
		if err := p.i.clearDeadline(p.raised); err != nil {
			p.i.log.Debug("isolation", "id", p.id, "error", err)
		}
		p.raised = nil
	}
}

// boundPriorities looks at all workloads that are lent a priority.
func (i *Isolator) boundPriorities(now time.Time) {
	held := i.view().held
	i.prioritiesMu.Lock()
	defer i.prioritiesMu.Unlock()
	for id, p := range i.priorities {
		if h := held[id]; h != nil {
			p.enforce(now, h)
		}
	}
}

// The bounds of a budget, as time in which the workload's promise adds up to
// it. The debt makes up for what is used between two looks of the guard.
const (
	savings = 200 * time.Millisecond
	debt    = 5 * time.Second
)

// budget is how much CPU time a workload may still use before its promise is
// used up. All of its time counts, under a priority or not, so that a workload
// that always has work gets its promise by priority and not its promise beside
// its part by weight. It reads no clock.
type budget struct {
	at   time.Time
	used time.Duration // running total at that time
	left time.Duration
}

// spend takes a workload's CPU time since it began, and its promise in
// thousandths of a CPU, and tells whether the promise is used up.
func (b *budget) spend(now time.Time, used time.Duration, milli int64) bool {
	if milli <= 0 {
		milli = 1000
	}
	promised := func(d time.Duration) time.Duration { return time.Duration(int64(d) / 1000 * milli) }
	if b.at.IsZero() || used < b.used { // a new cgroup counts from zero
		*b = budget{at: now, used: used, left: promised(savings)}
		return false
	}
	past := min(now.Sub(b.at), time.Minute)
	b.left += promised(past) - (used - b.used)
	b.left = max(-promised(debt), min(b.left, promised(savings)))
	b.at, b.used = now, used
	return b.left <= 0
}

func (i *Isolator) setDeadline(threads []int, within time.Duration) error {
	if s := i.ext.Load(); s != nil {
		by := linux.Monotonic() + int64(within)
		for _, tid := range threads {
			if err := s.SetDeadline(tid, by); err != nil {
				return err
			}
		}
		return nil
	}
	if within > nearby {
		return schedule(threads, linux.Scheduling{})
	}
	return schedule(threads, urgency.For(within))
}

func (i *Isolator) clearDeadline(threads []int) error {
	if s := i.ext.Load(); s != nil {
		for _, tid := range threads {
			if err := s.SetDeadline(tid, 0); err != nil {
				return err
			}
		}
		return nil
	}
	return schedule(threads, linux.Scheduling{})
}

func schedule(threads []int, s linux.Scheduling) error {
	for _, tid := range threads {
		if err := linux.SetScheduling(tid, s); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("SCHED_%s for thread %d: %w", s.Policy, tid, err)
		}
	}
	return nil
}
