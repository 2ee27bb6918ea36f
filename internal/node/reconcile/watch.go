package reconcile

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"oscine.dev/oscine/internal/object"
)

// Get returns the objects of a kind and name, all for empty ones, in order of
// kind and name.
func (l *Loop) Get(kind object.Kind, name string) []object.State {
	type found struct {
		state      object.State
		controller Controller
		shown      object.Observed
		created    time.Time
	}
	var all []found
	l.mu.Lock()
	for key, e := range l.entries {
		if (kind == "" || key.Kind == kind) && (name == "" || key.Name == name) {
			all = append(all, found{object.State{Key: key, Object: e.machine.desired}, e.controller, e.machine.shown, e.created})
		}
	}
	l.mu.Unlock()
	slices.SortFunc(all, func(a, b found) int { return strings.Compare(a.state.Key.String(), b.state.Key.String()) })
	states := make([]object.State, len(all))
	for i, f := range all {
		states[i] = f.state
		states[i].Status = f.controller.Status(f.shown)
		if !f.created.IsZero() {
			states[i].Status.Common().CreatedAt = &f.created
		}
	}
	return states
}

// Events of Watch.
const (
	EventSet     = "set"
	EventDeleted = "deleted"
)

// Watch calls f with every matching object now and after each change, until
// ctx ends or f fails; quick changes of one object may come as one.
func (l *Loop) Watch(ctx context.Context, kind object.Kind, name string, f func(event string, state object.State) error) error {
	changed := l.changes.subscribe()
	defer l.changes.unsubscribe(changed)
	for _, s := range l.Get(kind, name) {
		if err := f(EventSet, s); err != nil {
			return err
		}
	}
	for {
		keys, err := changed.wait(ctx)
		if err != nil {
			return err
		}
		for _, key := range keys {
			if (kind != "" && key.Kind != kind) || (name != "" && key.Name != name) {
				continue
			}
			event, state := EventDeleted, object.State{Key: key}
			if found := l.Get(key.Kind, key.Name); len(found) > 0 {
				event, state = EventSet, found[0]
			}
			if err := f(event, state); err != nil {
				return err
			}
		}
	}
}

// Same reports whether two objects are asked for in the same words.
func Same(a, b object.Object) bool {
	x, errA := json.Marshal(a)
	y, errB := json.Marshal(b)
	return errA == nil && errB == nil && bytes.Equal(x, y) && sameValues(a, b)
}

func sameValues(a, b object.Object) bool {
	x, isA := a.(object.Confidential)
	y, isB := b.(object.Confidential)
	return isA == isB && (!isA || maps.EqualFunc(x.Values(), y.Values(), bytes.Equal))
}
