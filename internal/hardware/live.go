package hardware

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Bounds of following a machine.
const (
	// MinLoadInterval is how often a follower may have the load.
	MinLoadInterval = 100 * time.Millisecond
	maxFollowers    = 64
	maxUnread       = 256 // changes that one follower has not taken yet

	// askInterval is how often drivers are asked for loads while someone
	// follows, each answer takes a program's start; followers in no hurry have
	// them asked less often. What is older than answerAge is not told.
	askInterval = time.Second
	answerAge   = 10 * askInterval
)

// ErrFollowers is returned where too many follow a machine already.
var ErrFollowers = fmt.Errorf("%d watch the hardware already: end one of them first", maxFollowers)

// ErrLoadInterval is returned for loads that are wanted too often.
var ErrLoadInterval = fmt.Errorf("too often: %v at least", MinLoadInterval)

// News is what a follower gets: the map, first and after every change, the
// changes that led to it, or the load.
type News struct {
	Machine *Machine // nil where it did not change; not to be written to
	Changes []Change
	Load    *Load
}

// Live holds the map of a machine as Watch keeps it up to date, and tells it
// and the load to any number of followers. Nobody waits for a slow one. It
// is safe for concurrent use, except for Close, which comes last.
type Live struct {
	root string
	// ask asks the drivers' programs, nil where there are none.
	ask func(*Machine) map[string]DeviceLoad

	mu        sync.Mutex
	m         *Machine // nil until the first look
	followers map[*follower]bool
	told      map[string]DeviceLoad // by drivers' programs
	answered  time.Time             // when that was told
	asked     time.Time             // when it was asked for
	asking    chan struct{}         // closed when that is answered; nil while nothing is asked
	asks      sync.WaitGroup

	sampling sync.Mutex
	sampler  *Sampler
	last     Reading
	read     time.Time // of last
}

type follower struct {
	changes []Change // guarded by Live.mu
	missed  int
	ready   chan struct{} // holds one token where the map is newer than what was sent
}

// NewLive follows the machine under root. What ask returns, by the IDs of
// devices, stands over what sysfs says of their load; it may take its time.
func NewLive(root string, ask func(*Machine) map[string]DeviceLoad) *Live {
	return &Live{root: root, ask: ask, followers: map[*follower]bool{}}
}

// Close waits for what is still asked and releases what is held.
func (l *Live) Close() error {
	l.asks.Wait()
	if l.sampler == nil {
		return nil
	}
	return l.sampler.Close()
}

// Set tells all followers of a new map, as Watch's update.
func (l *Live) Set(m *Machine, changes []Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.m = m
	for f := range l.followers {
		f.changes = append(f.changes, changes...)
		if over := len(f.changes) - maxUnread; over > 0 {
			f.changes = slices.Delete(f.changes, 0, over)
			f.missed += over
		}
		f.ring()
	}
}

// Machine is the newest map, nil before the first.
func (l *Live) Machine() *Machine {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.m
}

// Follow calls f with the map of the machine, with each change of it and, where
// every is not 0, that often with the load since the last time. It returns f's
// error, or why it could not go on; the context's end is no error.
func (l *Live) Follow(ctx context.Context, every time.Duration, f func(News) error) error {
	if every != 0 && every < MinLoadInterval {
		return fmt.Errorf("the load every %v is %w", every, ErrLoadInterval)
	}
	me, err := l.join()
	if err != nil {
		return err
	}
	defer l.leave(me)
	var ticks, asks <-chan time.Time
	var before Reading
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-me.ready:
			if err := f(l.news(me)); err != nil {
				return err
			}
			if ticks != nil || every == 0 {
				continue
			}
			if before, err = l.reading(); err != nil {
				return err
			}
			ticker, asker := time.NewTicker(every), time.NewTicker(min(max(every, askInterval), answerAge/2))
			defer ticker.Stop()
			defer asker.Stop()
			ticks, asks = ticker.C, asker.C
			l.askDrivers()
		case <-asks:
			l.askDrivers()
		case <-ticks:
			now, err := l.reading()
			if err != nil {
				return err
			}
			load := now.Since(before)
			before = now
			if err := f(News{Load: &load}); err != nil {
				return err
			}
		}
	}
}

func (l *Live) join() (*follower, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.followers) >= maxFollowers {
		return nil, ErrFollowers
	}
	f := &follower{ready: make(chan struct{}, 1)}
	l.followers[f] = true
	if l.m != nil {
		f.ring()
	}
	return f, nil
}

func (l *Live) leave(f *follower) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.followers, f)
}

func (f *follower) ring() {
	select {
	case f.ready <- struct{}{}:
	default:
	}
}

// news takes what a follower was not told yet.
func (l *Live) news(f *follower) News {
	l.mu.Lock()
	defer l.mu.Unlock()
	told := News{Machine: l.m, Changes: f.changes}
	if f.missed > 0 {
		lost := NewChange(ChangesMissed, "", fmt.Sprintf("%d changes came faster than they were read", f.missed))
		told.Changes = append([]Change{lost}, told.Changes...)
	}
	f.changes, f.missed = nil, 0
	return told
}

// askDrivers has drivers asked again in the background: a program that
// hangs must not hold up what the kernel knows.
//
// It returns what is closed when they have answered, nil where nothing is asked.
func (l *Live) askDrivers() (answered <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.m
	if l.ask == nil || l.asking != nil || m == nil || time.Since(l.asked) < askInterval/10*9 {
		return l.asking
	}
	done := make(chan struct{})
	l.asking, l.asked = done, time.Now()
	l.asks.Go(func() {
		told := l.ask(m)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.told, l.answered, l.asking = told, time.Now(), nil
		close(done)
	})
	return done
}

// Load returns the load now, that of CPUs since the machine started. Drivers
// that have not answered when ctx ends are left out.
func (l *Live) Load(ctx context.Context) (Load, error) {
	if answered := l.askDrivers(); answered != nil {
		select {
		case <-answered:
		case <-ctx.Done():
		}
	}
	r, err := l.reading()
	return r.Since(Reading{}), err
}

// drivers is the newest map and what drivers told last, unless that is long
// ago.
func (l *Live) drivers() (*Machine, map[string]DeviceLoad) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.answered) > answerAge {
		return l.m, nil
	}
	return l.m, l.told
}

// reading reads the counters of the machine, at most once in half of
// MinLoadInterval however many follow, and not at all where nobody does.
func (l *Live) reading() (Reading, error) {
	l.sampling.Lock()
	defer l.sampling.Unlock()
	if l.sampler == nil {
		s, err := NewSampler(l.root)
		if err != nil {
			return Reading{}, err
		}
		l.sampler = s
	}
	if time.Since(l.read) > MinLoadInterval/2 {
		m, told := l.drivers()
		l.last, l.read = l.sampler.Read(m, told), time.Now()
	}
	return l.last, nil
}
