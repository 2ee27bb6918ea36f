package reconcile

import (
	"errors"
	"fmt"
	"time"

	"oscine.dev/oscine/internal/object"
)

const (
	// settle is how long a daemon has to live with an object that is being
	// started for the object not to be what it died of.
	settle = 20 * time.Second
	// maxStarts is how often a daemon may die while it starts an object, before
	// the object is set aside.
	maxStarts = 2
)

// Load reads what is stored and has placements adopted; nothing is started
// before Start. An object that took the daemon down maxStarts times while it
// was being started is set aside, and one that cannot be read too: they are
// listed and can be deleted or applied again.
//
// That it is being started is counted for each object before it is even
// parsed, for all at once. When a daemon has died meanwhile, the next one
// starts those objects one after the other, so that only one is to blame.
func (l *Loop) Load() error {
	records, err := l.o.Records.Records()
	if err != nil {
		return err
	}
	var starting []object.Key
	for _, rec := range records {
		if rec.Starts == 0 && rec.Problem == nil {
			starting = append(starting, rec.Key)
		}
	}
	if err := l.o.Records.Begin(starting...); err != nil {
		return err
	}
	for _, rec := range records {
		switch {
		case rec.Starts >= maxStarts:
			l.addAside(rec, fmt.Errorf("set aside: the daemon ended %d times while it was being started; delete it, or apply another manifest", rec.Starts))
		case rec.Starts > 0:
			l.addAside(rec, errSuspect)
		default:
			l.load(rec)
		}
	}
	return nil
}

var errSuspect = errors.New("the daemon ended while it was being started: it waits to be started alone")

// addAside lists a record that is not started.
func (l *Loop) addAside(rec Record, why error) {
	l.locked(func() {
		e := l.add(rec.Key, nil, rec.Created)
		e.machine.setAside(why)
		if rec.Deleting {
			e.machine.delete()
		}
	})
}

// load parses a record and makes its entry.
func (l *Loop) load(rec Record) {
	obj, err := l.parse(rec)
	l.locked(func() {
		e := l.add(rec.Key, nil, rec.Created)
		e.begin(rec, obj, err)
		if rec.Deleting {
			e.machine.delete()
		}
	})
}

func (l *Loop) parse(rec Record) (object.Object, error) {
	obj, err := l.o.Records.Parse(rec)
	if err != nil {
		return nil, fmt.Errorf("the stored object cannot be read by this release: %w: delete it, or apply it again", err)
	}
	l.o.Adopt(obj, rec.Placement)
	instances := object.Instances(obj)
	for i, placement := range rec.Instances {
		if i+1 < len(instances) && !isNull(placement) {
			l.o.Adopt(instances[i+1], placement)
		}
	}
	return obj, nil
}

// begin takes what was stored, or why that cannot be read. The caller holds mu.
func (e *entry) begin(rec Record, obj object.Object, unreadable error) {
	if unreadable != nil {
		e.machine.setAside(unreadable)
		return
	}
	e.starting = true
	e.machine.set(obj)
	if rec.Stopped {
		e.machine.halt()
	}
}

// Start begins with what Load has read.
func (l *Loop) Start() {
	var suspects, starting []*entry
	l.locked(func() {
		for _, e := range l.entries {
			if e.machine.aside == errSuspect && !e.machine.deleting {
				suspects = append(suspects, e)
			}
			if e.starting {
				starting = append(starting, e)
			}
			e.advance()
		}
	})
	l.o.Clock.AfterFunc(settle, func() { l.survived(starting...) })
	l.wg.Go(func() {
		for _, e := range suspects {
			if l.life.Err() != nil {
				return
			}
			l.startAlone(e)
		}
	})
}

// startAlone starts an object that is suspected of having ended the daemon, and
// waits until that has gone well or long enough.
func (l *Loop) startAlone(e *entry) {
	records, err := l.o.Records.Records()
	if err == nil {
		err = l.o.Records.Begin(e.key)
	}
	if err != nil {
		l.o.Log.Error("an object is not started", "object", e.key.String(), "error", err)
		return
	}
	for _, rec := range records {
		if rec.Key != e.key {
			continue
		}
		obj, err := l.parse(rec)
		l.locked(func() {
			if l.entries[e.key] != e || e.machine.aside != errSuspect || e.machine.deleting {
				return // it was applied or deleted meanwhile
			}
			e.begin(rec, obj, err)
			e.advance()
		})
	}
	settled := make(chan struct{})
	cancel := l.o.Clock.AfterFunc(settle, func() { close(settled) })
	defer cancel()
	select {
	case <-e.tried:
	case <-settled:
	case <-l.life.Done():
		return
	}
	l.survived(e)
}

// survived notes that the daemon lives although it started these objects.
func (l *Loop) survived(entries ...*entry) {
	var keys []object.Key
	l.locked(func() {
		for _, e := range entries {
			select {
			case <-e.tried:
			default:
				close(e.tried)
			}
			if e.starting && !l.closed {
				e.starting = false
				keys = append(keys, e.key)
			}
		}
	})
	if len(keys) == 0 {
		return
	}
	if err := l.o.Records.Began(keys...); err != nil {
		l.o.Log.Warn("the store does not know that objects were started well", "error", err)
	}
}
