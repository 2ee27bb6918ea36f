package reconcile

import (
	"context"
	"fmt"
	"strings"

	"oscine.dev/oscine/internal/object"
)

// Action is what Apply did with an object.
type Action string

// The actions.
const (
	Created   Action = "created"
	Updated   Action = "updated"
	Unchanged Action = "unchanged"
)

// Result is what Apply did with one object.
type Result struct {
	object.Key
	Action Action
}

// Check gets the objects that are there, and refuses a call by an error.
type Check func(there []object.Object) error

// flight is an object that an Apply has stored and not yet handed to its
// machine.
type flight struct {
	obj    object.Object
	landed chan struct{} // closed when it is
}

// write takes the lock writing for a change of objects with the keys, of which no
// other Apply has any in flight.
func (l *Loop) write(ctx context.Context, keys ...object.Key) error {
	for {
		l.writing.Lock()
		var other *flight
		l.locked(func() {
			for _, key := range keys {
				if f := l.flights[key]; f != nil {
					other = f
				}
			}
		})
		if other == nil {
			return nil
		}
		l.writing.Unlock()
		select {
		case <-other.landed:
		case <-ctx.Done():
			return fmt.Errorf("another call is applying %s: %w", other.obj.Key(), context.Cause(ctx))
		}
	}
}

// Apply stores objects, all or none, and starts to bring them up. It returns
// before they run. allot is told what becomes of each object, once that is stored
// and before it is made so; until allot returns, only changes of the same objects
// wait. With dryRun nothing is changed, and allot is told the same.
func (l *Loop) Apply(ctx context.Context, objects []object.Object, dryRun bool, check Check, allot func([]Result)) ([]Result, error) {
	results, changed, err := l.take(ctx, objects, dryRun, check)
	if err != nil {
		return nil, err
	}
	if !dryRun {
		defer l.land(objects, results, changed)
	}
	allot(results)
	return results, nil
}

// take stores the objects and says which of them are new or changed.
// Without dryRun they are in flight afterwards, and the caller must land them.
func (l *Loop) take(ctx context.Context, objects []object.Object, dryRun bool, check Check) (results []Result, changed []object.Object, err error) {
	var keys []object.Key
	for _, obj := range objects {
		keys = append(keys, obj.Key())
	}
	if err := l.write(ctx, keys...); err != nil {
		return nil, nil, err
	}
	defer l.writing.Unlock()
	if err := check(l.Objects()); err != nil {
		return nil, nil, err
	}
	if results, changed, err = l.compare(objects); err != nil || dryRun {
		return results, nil, err
	}
	if len(changed) > 0 {
		if err := l.o.Records.Put(changed, l.o.Clock.Now()); err != nil {
			return nil, nil, err
		}
	}
	l.landing.Add(1)
	l.locked(func() {
		for _, obj := range objects {
			l.flights[obj.Key()] = &flight{obj, make(chan struct{})}
			if e, ok := l.entries[obj.Key()]; ok {
				e.machine.held = true
			}
		}
	})
	return results, changed, nil
}

// compare says what becomes of each object. The caller holds writing.
func (l *Loop) compare(objects []object.Object) (results []Result, changed []object.Object, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, nil, fmt.Errorf("apply: %w: the daemon is stopping: apply it again once it is back", ErrConflict)
	}
	var busy []string
	for _, obj := range objects {
		r := Result{obj.Key(), Created}
		if e, ok := l.entries[obj.Key()]; ok {
			r.Action = Updated
			switch m := e.machine; {
			case m.deleting && (m.under != none || m.again.IsZero()):
				busy = append(busy, obj.Key().String()+": is being deleted: apply it again in a moment")
			case !m.deleting && !m.stopped && m.aside == nil && Same(m.desired, obj):
				r.Action = Unchanged
			}
		}
		if r.Action != Unchanged {
			changed = append(changed, obj)
		}
		results = append(results, r)
	}
	if len(busy) > 0 {
		return nil, nil, fmt.Errorf("%w:\n%s", ErrInvalid, strings.Join(busy, "\n"))
	}
	return results, changed, nil
}

// land hands objects in flight to their machines.
func (l *Loop) land(objects []object.Object, results []Result, changed []object.Object) {
	defer l.landing.Done()
	l.locked(func() {
		for _, obj := range objects {
			if e, ok := l.entries[obj.Key()]; ok {
				e.machine.held = false
			}
		}
		for _, obj := range changed {
			l.set(obj)
		}
		for i, obj := range objects {
			if e, ok := l.entries[obj.Key()]; ok && results[i].Action == Unchanged {
				e.machine.retry()
				e.advance()
			}
		}
		for _, obj := range objects {
			if f, ok := l.flights[obj.Key()]; ok {
				close(f.landed)
				delete(l.flights, obj.Key())
			}
		}
	})
}

// set hands a stored object to its machine. The caller holds mu.
func (l *Loop) set(obj object.Object) {
	e, ok := l.entries[obj.Key()]
	if !ok {
		e = l.add(obj.Key(), obj, l.o.Clock.Now())
	}
	l.watchStart(e)
	e.machine.set(obj)
	e.advance()
}

// watchStart counts an object as being started until the daemon has lived with
// it for a while. The caller holds mu.
func (l *Loop) watchStart(e *entry) {
	e.starting = true
	l.o.Clock.AfterFunc(settle, func() { l.survived(e) })
}
