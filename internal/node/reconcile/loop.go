package reconcile

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"oscine.dev/oscine/internal/object"
)

// Clock tells the time and calls back. The loop has no other.
type Clock interface {
	Now() time.Time
	// AfterFunc calls f on a goroutine of its own after d, unless stop is called
	// before.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// Records is the part of a Store that the loop needs.
type Records interface {
	Records() ([]Record, error)
	Parse(Record) (object.Object, error)
	Put(objects []object.Object, now time.Time) error
	Begin(keys ...object.Key) error
	Began(keys ...object.Key) error
	MarkDeleting(object.Key) error
	// MarkStopped notes that an object is stopped, or that it is started again.
	MarkStopped(key object.Key, stopped bool) error
	Delete(object.Key) error
}

// Options is what a Loop works with; all are needed.
type Options struct {
	Records Records
	Clock   Clock
	Log     *slog.Logger
	// Controllers has a line for each kind that the records may hold.
	Controllers map[object.Kind]NewController
	// Adopt is called with the stored placement of an object before its controller
	// starts; nil for one without.
	Adopt func(obj object.Object, placement json.RawMessage)
	// Vacated is called when a stopped object has given back all it held, also
	// after a restart of the daemon: its stored placement is void.
	Vacated func(obj object.Object) error
	// Note takes an event of an object. It is called without locks held.
	Note func(key object.Key, reason, message string)
}

// Loop keeps all objects of a node in their desired state. It is safe for
// concurrent use, and no reader waits for the work of a controller or for the
// disk.
type Loop struct {
	o       Options
	limits  limits
	changes *broadcast

	life    context.Context // of what controllers do; ends at Close
	end     context.CancelFunc
	wg      sync.WaitGroup
	landing sync.WaitGroup // flights

	writing sync.Mutex // held by one who changes what is stored; taken before mu

	mu      sync.Mutex
	entries map[object.Key]*entry
	flights map[object.Key]*flight
	notes   []func() // to be called once mu is free
	closed  bool
}

// entry is one object. Its fields are guarded by Loop.mu.
type entry struct {
	l          *Loop
	key        object.Key
	controller Controller
	machine    *machine
	created    time.Time

	starting bool               // the store counts that it is being started
	tried    chan struct{}      // closed when Up has returned once
	end      context.CancelFunc // of the step under way
	stop     func() bool        // of the timer; nil for none
	waiting  []chan error       // for the end of its removal
}

// New returns a Loop without objects; Load fills it.
func New(ctx context.Context, o Options) *Loop {
	l := &Loop{o: o, limits: productLimits(), changes: newBroadcast(), entries: map[object.Key]*entry{}, flights: map[object.Key]*flight{}}
	l.life, l.end = context.WithCancel(context.WithoutCancel(ctx))
	return l
}

// locked calls f with mu held, and what f noted afterwards.
func (l *Loop) locked(f func()) {
	l.mu.Lock()
	f()
	notes := l.notes
	l.notes = nil
	l.mu.Unlock()
	for _, note := range notes {
		note()
	}
}

// add makes the entry of an object that nothing was begun with. The caller
// holds mu.
func (l *Loop) add(key object.Key, obj object.Object, created time.Time) *entry {
	e := &entry{l: l, key: key, created: created, tried: make(chan struct{})}
	e.machine = newMachine(e, l.limits, obj)
	e.controller = l.o.Controllers[key.Kind](key, e)
	_, e.machine.replaces = e.controller.(Replacer)
	l.entries[key] = e
	return e
}

// advance begins what is due. The caller holds mu.
func (e *entry) advance() {
	if e.stop != nil {
		e.stop()
		e.stop = nil
	}
	now := e.l.o.Clock.Now()
	if next := e.machine.tick(now); !next.IsZero() {
		e.stop = e.l.o.Clock.AfterFunc(next.Sub(now), func() { e.l.locked(e.advance) })
	}
}

// start implements work.
func (e *entry) start(s step, obj object.Object) {
	ctx, end := context.WithCancel(e.l.life)
	e.end = end
	e.l.wg.Go(func() {
		defer end()
		e.carryOut(ctx, s, obj)
	})
}

func (e *entry) carryOut(ctx context.Context, s step, obj object.Object) {
	var err error
	switch s {
	case bringUp:
		err = e.controller.Up(ctx, obj)
		e.l.survived(e)
	case attend:
		err = e.controller.Attend(ctx, obj)
	case stop:
		err = e.controller.Stop(ctx, obj)
	case recycle:
		err = e.controller.Halt(ctx, obj)
	case halt:
		if err = e.controller.Halt(ctx, obj); err == nil {
			err = e.l.o.Vacated(obj)
		}
	case remove:
		if err = e.controller.Remove(ctx, obj); err == nil {
			e.l.writing.Lock()
			defer e.l.writing.Unlock()
			err = e.l.o.Records.Delete(e.key)
		}
	}
	e.l.locked(func() {
		e.machine.ended(err, e.l.o.Clock.Now())
		switch {
		case e.l.closed:
		case s == remove:
			e.removed(err)
		case s == halt && err == nil:
			e.l.retryAll() // there may be room for them now
		}
		e.advance()
	})
}

// removed tells those who wait what became of the removal. The caller holds mu.
func (e *entry) removed(err error) {
	for _, w := range e.waiting {
		w <- err
	}
	e.waiting = nil
	if !e.machine.deleted {
		return
	}
	delete(e.l.entries, e.key)
	e.l.changes.publish(e.key)
	e.l.retryAll() // there may be room for them now
}

// cancel implements work.
func (e *entry) cancel() { e.end() }

// observed implements work.
func (e *entry) observed(o object.Observed, failed error) {
	e.l.changes.publish(e.key)
	if failed == nil {
		return
	}
	reason := ReasonFailed
	if o.Phase == object.Unplaced {
		reason = ReasonUnplaced
	}
	e.l.notes = append(e.l.notes, func() {
		e.l.o.Log.Warn("object", "key", e.key.String(), "phase", o.Phase, "error", failed)
		e.l.o.Note(e.key, reason, failed.Error())
	})
}

// Phase implements Reporter.
func (e *entry) Phase(phase object.Phase, message string) {
	e.l.locked(func() { e.machine.report(phase, message) })
}

// Changed implements Reporter.
func (e *entry) Changed() { e.l.changes.publish(e.key) }

// Event implements Reporter.
func (e *entry) Event(reason, message string) { e.l.o.Note(e.key, reason, message) }

// Delete removes an object and waits until everything it held is free and it is
// forgotten. A removal that fails is retried later, and at once by another
// Delete. The removal continues when ctx ends. Checks see the objects that are
// there, and refuse the call by an error.
func (l *Loop) Delete(ctx context.Context, key object.Key, checks ...Check) error {
	ended := make(chan error, 1)
	if err := l.delete(ctx, key, ended, checks); err != nil {
		return err
	}
	select {
	case err := <-ended:
		if err != nil {
			return fmt.Errorf("delete %s: %w", key, err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.life.Done():
		return fmt.Errorf("delete %s: %w: the daemon stops; the next one goes on with it", key, ErrConflict)
	}
}

func (l *Loop) delete(ctx context.Context, key object.Key, ended chan error, checks []Check) error {
	if err := l.write(ctx, key); err != nil {
		return err
	}
	defer l.writing.Unlock()
	there, closed := false, false
	l.locked(func() { _, there = l.entries[key]; closed = l.closed })
	if closed {
		return fmt.Errorf("delete %s: %w: the daemon stops: delete it again when the next one runs", key, ErrConflict)
	}
	if !there {
		return fmt.Errorf("%s %q: %w", key.Kind, key.Name, ErrNotFound)
	}
	for _, check := range checks {
		if err := check(l.Objects()); err != nil {
			return err
		}
	}
	if err := l.o.Records.MarkDeleting(key); err != nil {
		return err
	}
	l.locked(func() {
		e := l.entries[key] // only a removal, which holds writing, takes it away
		e.waiting = append(e.waiting, ended)
		e.machine.delete()
		e.advance()
	})
	return nil
}

// Displace has the named objects stopped and placed again, because their part
// of the machine is gone or given to another; names are those of Key.ID.
func (l *Loop) Displace(names map[string]error) {
	if len(names) == 0 {
		return
	}
	l.locked(func() {
		for key, e := range l.entries {
			reason, ok := names[key.ID()]
			if !ok {
				continue
			}
			l.notes = append(l.notes, func() {
				l.o.Log.Warn("a placement was lost; placing again", "object", key.String(), "reason", reason)
				l.o.Note(key, ReasonDisplaced, reason.Error())
			})
			e.machine.markLost(reason)
			e.advance()
		}
	})
}

// Changed makes watchers read an object's status again.
func (l *Loop) Changed(key object.Key) { l.changes.publish(key) }

// Wake retries objects in backoff now: those that chosen picks, all for nil.
func (l *Loop) Wake(chosen func(object.Object) bool) {
	l.locked(func() {
		for _, e := range l.entries {
			if chosen == nil || (e.machine.desired != nil && chosen(e.machine.desired)) {
				e.machine.retry()
				e.advance()
			}
		}
	})
}

// Renew has Up called again for the chosen objects, also for those that run:
// what they were given beside their manifests has changed.
func (l *Loop) Renew(chosen func(object.Object) bool) {
	l.locked(func() {
		for _, e := range l.entries {
			if e.machine.desired != nil && chosen(e.machine.desired) {
				e.machine.renew()
				e.advance()
			}
		}
	})
}

// retryAll is Wake for one that holds mu.
func (l *Loop) retryAll() {
	for _, e := range l.entries {
		e.machine.retry()
		e.advance()
	}
}

// Objects returns what is desired, in order of kind and name, without objects
// that cannot be read or are being deleted; with those that an Apply under way
// has stored.
func (l *Loop) Objects() []object.Object {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []object.Object
	for key, e := range l.entries {
		if e.machine.desired != nil && !e.machine.deleting && l.flights[key] == nil {
			all = append(all, e.machine.desired)
		}
	}
	for _, f := range l.flights {
		all = append(all, f.obj)
	}
	slices.SortFunc(all, func(a, b object.Object) int { return strings.Compare(a.Key().String(), b.Key().String()) })
	return all
}

// Keys returns the keys of all objects, those that are being deleted too.
func (l *Loop) Keys() []object.Key {
	l.mu.Lock()
	defer l.mu.Unlock()
	var keys []object.Key
	for key := range l.entries {
		keys = append(keys, key)
	}
	return keys
}

// Close ends current steps and waits for them; running objects keep running for the next daemon.
func (l *Loop) Close() {
	var starting []object.Key
	l.writing.Lock() // what is being stored is
	l.locked(func() { l.closed = true })
	l.writing.Unlock()
	l.landing.Wait() // an Apply under way ends before
	l.locked(func() {
		for key, e := range l.entries {
			e.machine.close()
			e.advance()
			if e.starting {
				starting = append(starting, key)
			}
		}
	})
	l.end()
	l.wg.Wait()
	if err := l.o.Records.Began(starting...); err != nil {
		l.o.Log.Warn("the store does not know that the daemon stopped in order", "error", err)
	}
}
