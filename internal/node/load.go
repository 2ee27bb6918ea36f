package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"oscine.dev/oscine/internal/hardware"
)

// Bounds of watching the hardware.
const (
	// MinLoadInterval is how often a watcher may have the load.
	MinLoadInterval = 100 * time.Millisecond
	maxWatchers     = 64
	maxUnread       = 256 // changes that one watcher has not taken yet

	// askInterval is how often drivers are asked for loads while someone
	// watches: each answer takes a program's start.
	askInterval = time.Second
)

// HardwareNews is what a watcher of the hardware is told: the map, first and
// after every change, the changes that led to it, or the load.
type HardwareNews struct {
	Machine *hardware.Machine // nil where it did not change; not to be written to
	Changes []hardware.Change
	Load    *hardware.Load
}

// live holds the map as it is kept up to date, and who watches it.
type live struct {
	mu       sync.Mutex
	m        *hardware.Machine // nil until the first look
	watchers map[*hardwareWatcher]bool

	// ask asks the drivers' programs; nil where there are none.
	ask    func() map[string]hardware.DeviceLoad
	told   map[string]hardware.DeviceLoad
	asked  time.Time // when told was told
	asking bool
	asks   sync.WaitGroup

	recording sync.Mutex // held while the machine is recorded

	sampling sync.Mutex
	sampler  *hardware.Sampler
	last     hardware.Reading
	read     time.Time // of last
}

type hardwareWatcher struct {
	changes []hardware.Change // guarded by live.mu
	missed  int
	ready   chan struct{} // holds one token where the map is newer than what was told
}

func newLive(ask func() map[string]hardware.DeviceLoad) *live {
	return &live{watchers: map[*hardwareWatcher]bool{}, ask: ask}
}

func (l *live) close() error {
	l.asks.Wait()
	if l.sampler == nil {
		return nil
	}
	return l.sampler.Close()
}

// set tells all watchers of a new map. It waits for none of them.
func (l *live) set(m *hardware.Machine, changes []hardware.Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.m = m
	for w := range l.watchers {
		w.changes = append(w.changes, changes...)
		if over := len(w.changes) - maxUnread; over > 0 {
			w.changes = slices.Delete(w.changes, 0, over)
			w.missed += over
		}
		w.ring()
	}
}

func (w *hardwareWatcher) ring() {
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

func (l *live) machine() *hardware.Machine {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.m
}

func (l *live) subscribe() (*hardwareWatcher, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.watchers) >= maxWatchers {
		return nil, fmt.Errorf("%w: %d watch the hardware already: end one of them first", ErrConflict, maxWatchers)
	}
	w := &hardwareWatcher{ready: make(chan struct{}, 1)}
	l.watchers[w] = true
	if l.m != nil {
		w.ring()
	}
	return w, nil
}

func (l *live) unsubscribe(w *hardwareWatcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.watchers, w)
}

// news takes what a watcher was not told yet.
func (l *live) news(w *hardwareWatcher) HardwareNews {
	l.mu.Lock()
	defer l.mu.Unlock()
	told := HardwareNews{Machine: l.m, Changes: w.changes}
	if w.missed > 0 {
		lost := hardware.NewChange(hardware.ChangesMissed, "", fmt.Sprintf("%d changes came faster than they were read", w.missed))
		told.Changes = append([]hardware.Change{lost}, told.Changes...)
	}
	w.changes, w.missed = nil, 0
	return told
}

// drivers is what drivers told last. It has them asked anew, which nobody waits
// for: a program that hangs must not hold up what the kernel knows.
func (l *live) drivers() map[string]hardware.DeviceLoad {
	l.mu.Lock()
	defer l.mu.Unlock()
	age := time.Since(l.asked)
	if l.ask != nil && !l.asking && age > askInterval {
		l.asking = true
		l.asks.Go(func() {
			told := l.ask()
			l.mu.Lock()
			defer l.mu.Unlock()
			l.told, l.asked, l.asking = told, time.Now(), false
		})
	}
	if age > 10*askInterval {
		return nil
	}
	return l.told
}

// reading reads the counters of the machine, at most once in half of
// MinLoadInterval however many watch, and not at all where nobody does.
func (l *live) reading(m *hardware.Machine) (hardware.Reading, error) {
	l.sampling.Lock()
	defer l.sampling.Unlock()
	if l.sampler == nil {
		s, err := hardware.NewSampler(sysRoot)
		if err != nil {
			return hardware.Reading{}, err
		}
		l.sampler = s
	}
	if time.Since(l.read) > MinLoadInterval/2 {
		l.last, l.read = l.sampler.Read(m, l.drivers()), time.Now()
	}
	return l.last, nil
}

// WatchHardware calls f with the map of the machine, with each change of it
// and, where every is not 0, that often with the load since the last time. It
// returns f's error, or the context's.
func (n *Node) WatchHardware(ctx context.Context, every time.Duration, f func(HardwareNews) error) error {
	if every != 0 && every < MinLoadInterval {
		return fmt.Errorf("%w: the load every %v is too often: %v at least", ErrInvalid, every, MinLoadInterval)
	}
	w, err := n.live.subscribe()
	if err != nil {
		return err
	}
	defer n.live.unsubscribe(w)
	var ticks <-chan time.Time
	if every > 0 {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		ticks = ticker.C
	}
	var before hardware.Reading
	begun := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.ready:
			if err := f(n.live.news(w)); err != nil {
				return err
			}
			if begun || every == 0 {
				continue
			}
			if before, err = n.live.reading(n.live.machine()); err != nil {
				return err
			}
			begun = true
		case <-ticks:
			if !begun {
				continue // there is no map yet
			}
			now, err := n.live.reading(n.live.machine())
			if err != nil {
				return err
			}
			load := now.Since(before)
			before = now
			if err := f(HardwareNews{Load: &load}); err != nil {
				return err
			}
		}
	}
}

// sawHardware tells people of a new map and of what changed on it.
func (n *Node) sawHardware(m *hardware.Machine, changes []hardware.Change) {
	n.live.set(m, changes)
	for _, c := range changes {
		n.noteChange(c)
	}
}
