package reconcile

import (
	"context"
	"fmt"

	"oscine.dev/oscine/internal/object"
)

// StopObject has an object stopped, which stays so across restarts of the daemon until
// StartObject, RestartObject or Apply. It returns before that is done; see Get and Watch.
func (l *Loop) StopObject(ctx context.Context, key object.Key) error {
	return l.command(ctx, key, "stop", true, func(e *entry) { e.machine.halt() })
}

// StartObject has an object run that was stopped or has ended; one that runs goes on.
func (l *Loop) StartObject(ctx context.Context, key object.Key) error {
	return l.command(ctx, key, "start", false, func(e *entry) {
		if m := e.machine; m.finished {
			m.recycle()
		} else if m.stopped {
			m.run()
		} else {
			m.retry()
		}
	})
}

// RestartObject has an object stopped and brought up again.
func (l *Loop) RestartObject(ctx context.Context, key object.Key) error {
	return l.command(ctx, key, "restart", false, func(e *entry) { e.machine.recycle() })
}

// command notes whether an object is stopped and tells its machine.
func (l *Loop) command(ctx context.Context, key object.Key, verb string, stopped bool, tell func(*entry)) error {
	if err := l.write(ctx, key); err != nil {
		return err
	}
	defer l.writing.Unlock()
	var refusal error
	l.locked(func() {
		switch e, ok := l.entries[key]; {
		case !ok:
			refusal = fmt.Errorf("%s %q: %w", key.Kind, key.Name, ErrNotFound)
		case l.closed:
			refusal = fmt.Errorf("%s %s: %w: the daemon stops: do it again when the next one runs", verb, key, ErrConflict)
		case e.machine.deleting:
			refusal = fmt.Errorf("%s %s: %w: it is being deleted", verb, key, ErrConflict)
		case e.machine.aside != nil:
			refusal = fmt.Errorf("%s %s: %w: %w", verb, key, ErrConflict, e.machine.aside)
		}
	})
	if refusal != nil {
		return refusal
	}
	if err := l.o.Records.MarkStopped(key, stopped); err != nil {
		return err
	}
	l.locked(func() {
		e, ok := l.entries[key]
		if !ok {
			return // a removal has ended meanwhile
		}
		if !stopped {
			l.watchStart(e)
		}
		tell(e)
		e.advance()
	})
	return nil
}
