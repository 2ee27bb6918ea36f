package core

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"
)

// Loading says when a model's workers run.
type Loading struct {
	// OnDemand starts the workers when a request wants the model, and ends them when
	// there was none for Idle, or for Evict.
	OnDemand bool
	Idle     time.Duration // 0: DefaultLoadedIdle
	// Now starts the first workers at once.
	Now bool
}

// DefaultLoadedIdle is how long a model that is loaded on demand stays loaded
// without a request.
const DefaultLoadedIdle = 5 * time.Minute

// wantPatience bounds how long want keeps asking for a worker.
const wantPatience = 200 * time.Millisecond

// loadPatience bounds how long a request waits for a model that loads.
const loadPatience = 10 * time.Minute

// demand is what a model that is loaded on demand knows of its requests.
type demand struct {
	busy    atomic.Int32     // requests that have it, or wait for it
	waiters atomic.Int32     // those that wait for a worker
	used    atomic.Int64     // when the last request ended, in ns since 1970
	wanted  signal           // somebody waits
	unload  chan chan<- bool // asks to have the workers ended

	// Guarded by the model's mu.
	resting int         // instances that nobody needs and whose workers may not have ended
	evictor chan<- bool // is told when they have ended; nil: nobody is
}

func newDemand() *demand {
	return &demand{unload: make(chan chan<- bool)}
}

// errUnloaded ends the life of a worker that nobody needs.
var errUnloaded = errors.New("it was unloaded")

// awaitDemand has an instance idle until somebody waits for the model or another
// instance is loaded; why says what became of its last worker. It reports false where
// the model is served no more.
func (in *instance) awaitDemand(why string) bool {
	m, d := in.m, in.m.demand
	if in.Unloaded != nil {
		in.Unloaded()
	}
	in.set(Idle, why, nil)
	in.rested()
	for {
		changed, wanted := m.changed.wait(), d.wanted.wait()
		if d.waiters.Load() > 0 || m.living() != nil {
			return true
		}
		select {
		case <-wanted:
		case <-changed:
		case <-m.ctx.Done():
			return false
		}
	}
}

// rested notes that the worker which nobody needed has ended. With the last one there
// is room for others.
func (in *instance) rested() {
	m, d := in.m, in.m.demand
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-in.unload: // it had ended before it was told
	default:
	}
	if !in.resting {
		return
	}
	in.resting = false
	if d.resting--; d.resting == 0 && d.evictor != nil {
		d.evictor <- true
		d.evictor = nil
	}
}

// want asks for the workers.
func (d *demand) want() { d.wanted.broadcast() }

// unneeded waits until the workers are to be unloaded, and makes the model idle: no
// request has it then, and none gets it before the next worker. It returns where stop
// ends first.
func (m *model) unneeded(stop <-chan struct{}) {
	d := m.demand
	d.used.Store(time.Now().UnixNano())
	timer := time.NewTimer(m.Loading.Idle)
	defer timer.Stop()
	for {
		select {
		case <-stop:
			return
		case reply := <-d.unload:
			if !m.rest("making room for another model", reply) {
				reply <- false
				continue
			}
			m.metrics.evictions.Add(1)
			return
		case <-timer.C:
			left := m.Loading.Idle - time.Since(time.Unix(0, d.used.Load()))
			if d.busy.Load() > 0 {
				left = m.Loading.Idle
			}
			if left <= 0 && m.rest("", nil) {
				return
			}
			timer.Reset(max(left, time.Millisecond))
		}
	}
}

// rest takes the workers from the requests, unless one has them, and has them end.
// The evictor, which may be nil, learns of their end. It is refused while an instance
// starts or ends: the start may be waiting in Evict itself, for room.
func (m *model) rest(why string, evictor chan<- bool) bool {
	d := m.demand
	m.mu.Lock()
	if d.busy.Load() > 0 || m.living() == nil || evictor != nil && m.moving() {
		m.mu.Unlock()
		return false
	}
	if evictor != nil {
		d.evictor = evictor
	}
	for _, in := range m.instances {
		if in.state == Failed || in.state == Idle {
			continue // it has no worker
		}
		in.life.Store(nil)
		in.state, in.message = Idle, why
		if !in.resting {
			in.resting = true
			d.resting++
		}
		select {
		case in.unload <- struct{}{}:
		default:
		}
	}
	m.summarize()
	m.mu.Unlock()
	m.changed.broadcast()
	m.notify()
	return true
}

// moving reports whether an instance starts or ends. The caller holds mu.
func (m *model) moving() bool {
	return slices.ContainsFunc(m.instances, func(in *instance) bool { return in.state == Starting || in.resting })
}

// hold keeps a model that is loaded on demand loaded for a request, until the
// function is called.
func (m *model) hold() func() {
	m.demand.busy.Add(1)
	return func() {
		m.demand.used.Store(time.Now().UnixNano())
		m.demand.busy.Add(-1)
	}
}

// load waits until the model is loaded, and loads it where it is not. Where loading
// fails it is tried again for a while; a load that has begun by then is waited for.
func (m *model) load(ctx context.Context) error {
	m.demand.waiters.Add(1)
	defer m.demand.waiters.Add(-1)
	timer := time.NewTimer(loadPatience)
	defer timer.Stop()
	failing, last, why := false, false, "" // last: what is tried now is the last
	for {
		changed := m.changed.wait()
		m.mu.Lock()
		state, message := m.state, m.message
		m.mu.Unlock()
		switch state {
		case Ready:
			return nil
		case Failed:
			return fmt.Errorf("%w: %s: %s", ErrNotReady, m.Name, message)
		case Idle:
			m.demand.want()
		case Waiting:
			switch why = message; {
			case last:
				timer.Reset(0)
			case !failing:
				failing = true
				timer.Reset(m.restartWait)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if why != "" {
				return fmt.Errorf("%w: %s cannot be loaded now: %s", ErrNotReady, m.Name, why)
			}
			return m.left(ctx)
		case <-timer.C:
			if state == Starting && failing && !last {
				last = true
				timer.Reset(loadPatience)
				continue
			}
			return fmt.Errorf("%w: %s cannot be loaded now: %s", ErrNotReady, m.Name, cmp.Or(why, "loading takes too long"))
		}
	}
}

// until is a context that ends when a request has expired.
func (m *model) until(ctx context.Context, q *Request) (context.Context, context.CancelFunc) {
	if m.demand == nil {
		return ctx, func() {}
	}
	expires := m.rank(q).expires
	if expires.IsZero() {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, expires)
}

// Evictable are the names of the models that Evict can unload now, the least
// recently used first.
func (r *Registry) Evictable() []string {
	type candidate struct {
		name string
		used int64
	}
	var list []candidate
	r.mu.RLock()
	models := maps.Clone(r.models)
	r.mu.RUnlock()
	for name, m := range models {
		if m.demand == nil || m.demand.busy.Load() > 0 || m.living() == nil {
			continue
		}
		m.mu.Lock()
		moving := m.moving()
		m.mu.Unlock()
		if !moving {
			list = append(list, candidate{name, m.demand.used.Load()})
		}
	}
	slices.SortFunc(list, func(a, b candidate) int { return cmp.Or(cmp.Compare(a.used, b.used), cmp.Compare(a.name, b.name)) })
	names := make([]string, len(list))
	for i, c := range list {
		names[i] = c.name
	}
	return names
}

// Evict unloads a model that is loaded on demand, and returns once its workers have
// ended. It reports false where a request has the model, it is not loaded, one of its
// instances starts or ends, or its workers take too long to end.
func (r *Registry) Evict(ctx context.Context, name string) bool {
	m, err := r.model(name)
	if err != nil || m.demand == nil {
		return false
	}
	reply := make(chan bool, 1)
	patience := time.NewTimer(time.Second) // the supervisor is busy with another end of the worker
	defer patience.Stop()
	select {
	case m.demand.unload <- reply:
	case <-patience.C:
		return false
	case <-ctx.Done():
		return false
	}
	patience.Reset(r.patience)
	select {
	case done := <-reply:
		return done
	case <-m.done:
		return true
	case <-patience.C:
		return false
	case <-ctx.Done():
		return false
	}
}

// want starts loading a model that is loaded on demand, and does not wait for it.
func (r *Registry) want(name string) {
	m, err := r.model(name)
	if err != nil || m.demand == nil {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(m.ctx, wantPatience)
		defer cancel()
		_ = m.load(ctx) // the caller looks at the state again
	}()
}
