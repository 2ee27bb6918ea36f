package isolate

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"oscine.dev/oscine/internal/linux"
)

// level is how far batch work is held back.
type level int

// The levels, in the order of escalation.
const (
	free      level = iota
	throttled       // a tenth of the processors
	frozen
)

// Guard's rules. A stall is time in which interactive work waited for memory,
// a disk or a processor that batch work could be using.
const (
	guardTick     = 5 * time.Millisecond   // between looks while interactive work stalls
	guardRest     = 100 * time.Millisecond // between looks while all is well
	stallBudget   = 0.10                   // fraction of a look's time that may be stalled
	calmFor       = 50 * time.Millisecond  // without stalls before batch gets a level back
	longestFreeze = 2 * time.Second        // batch gets on again at least this often
	holdOff       = 10 * time.Second       // when holding batch back did not help
)

// guardState decides how far batch is held back, from looks at the stalls of
// interactive work. It reads no clock.
type guardState struct {
	level level
	why   string

	lastAt      time.Time
	lastStall   time.Duration // running total at lastAt
	calmSince   time.Time
	frozenSince time.Time
	helpless    time.Time // until when batch is left alone: it was not the cause
}

// look takes the running total of stalled time and returns the new level. It
// escalates at once and goes back slowly, one level at a time. Where freezing
// batch does not end the stalls, interactive work stalls itself: batch is let
// go, and left alone for a while.
func (g *guardState) look(now time.Time, stalled time.Duration, why string) (change level, changed bool) {
	past, stall := now.Sub(g.lastAt), stalled-g.lastStall
	first := g.lastAt.IsZero()
	g.lastAt, g.lastStall = now, stalled
	if first || past <= 0 {
		return g.level, false
	}
	bad := float64(stall) > stallBudget*float64(past)
	if bad {
		g.calmSince = time.Time{}
	} else if g.calmSince.IsZero() {
		g.calmSince = now
	}
	before := g.level
	switch {
	case g.level == frozen && now.Sub(g.frozenSince) >= longestFreeze:
		if bad {
			g.helpless = now.Add(holdOff)
			g.level = free
		} else {
			g.level = throttled
		}
	case bad && now.Before(g.helpless):
	case bad && g.level < frozen:
		if g.level++; g.level == frozen {
			g.frozenSince = now
		}
		g.why = why
	case !bad && g.level > free && now.Sub(g.calmSince) >= calmFor:
		g.level--
		g.calmSince = now
	}
	return g.level, g.level != before
}

// Watch holds batch work back while interactive work stalls, and verifies the
// kernel's settings every few seconds, until ctx ends. Nothing of it runs on when
// it returns.
func (i *Isolator) Watch(ctx context.Context) {
	if i.host.cgroups == "" {
		return
	}
	var ends sync.WaitGroup
	defer ends.Wait()
	if i.o.Own {
		ends.Go(func() { i.rescueReaders(ctx) })
	}
	// The guard itself must come in time.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := linux.SetScheduling(0, linux.Scheduling{Policy: linux.PolicyFIFO, Priority: RealtimePriority - 1, ResetOnFork: true}); err != nil {
		i.log.Debug("isolation", "error", err)
	}
	const verifyEvery = 5 * time.Second
	verified, observed := time.Now(), time.Now()
	verify, observe := beside{do: func() { i.Verify() }}, beside{do: i.observe}
	defer verify.wait()
	defer observe.wait()
	news := i.newNews()
	defer news.close()
	timer := time.NewTimer(guardRest)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-timer.C:
			timer.Reset(i.guardOnce(now, news.add))
			if now.Sub(verified) >= verifyEvery {
				verified = now
				verify.start()
			}
			if now.Sub(observed) >= observeEvery {
				observed = now
				observe.start()
			}
		}
	}
}

// beside does something in a goroutine of its own, once at a time: what comes
// due before it has ended is left out.
type beside struct {
	do      func()
	running sync.Mutex
	ends    sync.WaitGroup
}

func (b *beside) start() {
	if !b.running.TryLock() {
		return
	}
	b.ends.Go(func() {
		defer b.running.Unlock()
		b.do()
	})
}

func (b *beside) wait() { b.ends.Wait() }

// news are events that the guard has no time to write down: the receiver of
// them may have to wait for the disk.
type news struct {
	beside

	mu     sync.Mutex
	events []Event
}

func (i *Isolator) newNews() *news {
	n := &news{}
	n.do = func() { i.emit(n.take()) }
	return n
}

func (n *news) take() []Event {
	n.mu.Lock()
	defer n.mu.Unlock()
	events := n.events
	n.events = nil
	return events
}

// add takes events, at times none, and has those told that nobody was yet.
func (n *news) add(events []Event) {
	n.mu.Lock()
	for _, e := range events {
		e.Time = time.Now()
		n.events = append(n.events, e)
	}
	waiting := len(n.events) > 0
	n.mu.Unlock()
	if waiting {
		n.start()
	}
}

// close returns when all have been told.
func (n *news) close() {
	n.wait()
	n.do()
}

// guardOnce looks once, gives tell what changed, and returns when to look next.
// It waits for no change under way.
func (i *Isolator) guardOnce(now time.Time, tell func([]Event)) time.Duration {
	i.boundPriorities(now)
	i.guardMu.Lock()
	stalled, why := i.stalls.of(i)
	earlier := i.guard.lastStall
	helpless := i.guard.helpless
	to, changed := i.guard.look(now, stalled, why)
	var events []Event
	if changed {
		err := i.holdBatch(to)
		events = i.guardEvents(to, helpless, err)
	}
	busy := i.guard.level != free || i.guard.lastStall > earlier
	i.guardMu.Unlock()
	tell(events)
	if busy {
		return guardTick
	}
	return guardRest
}

func (i *Isolator) guardEvents(to level, helpless time.Time, err error) []Event {
	switch {
	case err != nil:
		return []Event{{Reason: ReasonBroken, Message: "hold batch work back: " + err.Error()}}
	case to == free && i.guard.helpless.After(helpless):
		return []Event{{Reason: ReasonOverload, Message: fmt.Sprintf(
			"interactive work waits (%s) even while batch work is frozen: it asks for more than it has; batch goes on", i.guard.why)}}
	case to == free:
		return []Event{{Reason: ReasonResumed, Message: "batch work goes on: interactive work waits no more"}}
	case to == throttled && i.guard.calmSince.IsZero():
		return []Event{{Reason: ReasonHeldBack, Message: "batch work is throttled: interactive work waits (" + i.guard.why + ")"}}
	case to == frozen:
		return []Event{{Reason: ReasonHeldBack, Message: "batch work is frozen: interactive work still waits (" + i.guard.why + ")"}}
	}
	return nil
}

// holdBatch makes the kernel hold the batch class back.
func (i *Isolator) holdBatch(to level) error {
	if to == free {
		i.heldBack.Store(nil)
	} else {
		why := i.guard.why
		i.heldBack.Store(&why)
	}
	group := filepath.Join(i.o.Slice, string(Batch))
	const period = 20_000 // µs
	quota := "max"
	if to != free {
		quota = fmt.Sprint(max(i.host.online().Len()*period/10, 1000))
	}
	freeze := "0"
	if to == frozen {
		freeze = "1"
	}
	return errors.Join(
		i.cg.set(group, "cgroup.freeze", freeze),
		i.cg.set(group, "cpu.max", fmt.Sprintf("%s %d", quota, period)),
	)
}

// resumeBatch undoes what the guard holds.
func (i *Isolator) resumeBatch() error {
	i.guardMu.Lock()
	defer i.guardMu.Unlock()
	if i.guard.level == free {
		return nil
	}
	i.guard.level = free
	return i.holdBatch(free)
}
