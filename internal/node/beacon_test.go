package node_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"oscine.dev/oscine/internal/journal"
	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/object"
)

// kindBeacon is a kind of this test's own: all that the product needs of it is
// in this file, and its row and its controller where they are passed on.
const kindBeacon object.Kind = "Beacon"

type beacon struct {
	object.Header
	Spec beaconSpec `json:"spec"`
}

type beaconSpec struct {
	Text     string          `json:"text"`
	Interval object.Duration `json:"interval,omitzero"` // default 10ms
}

type beaconStatus struct {
	object.Observed
	Blinks int64 `json:"blinks"`
}

func beaconKind() object.Definition {
	return object.Definition{
		Kind: kindBeacon, Aliases: []string{"bcn"},
		New:       func() object.Object { return &beacon{} },
		NewStatus: func() object.Status { return &beaconStatus{} },
		Columns: []object.Column{{Title: "BLINKS", Value: func(st object.Status) string {
			if b, ok := st.(*beaconStatus); ok {
				return strconv.FormatInt(b.Blinks, 10)
			}
			return ""
		}}},
	}
}

func (b *beacon) SetDefaults() {
	if b.Spec.Interval == 0 {
		b.Spec.Interval = object.Duration(10 * time.Millisecond)
	}
}

func (b *beacon) Check(c *object.Checker) {
	if b.Spec.Text == "" {
		c.Bad("spec.text", "is required")
	}
	c.Duration("spec.interval", b.Spec.Interval, time.Millisecond, time.Hour)
}

// lamp is the controller of a beacon: it writes its text into the log at every
// interval.
type lamp struct {
	key     object.Key
	tell    reconcile.Reporter
	logs    string // folder
	blinks  atomic.Int64
	journal *journal.Writer
}

func newLamp(logs string) reconcile.NewController {
	return func(key object.Key, r reconcile.Reporter) reconcile.Controller {
		return &lamp{key: key, tell: r, logs: logs}
	}
}

func (l *lamp) path() string { return filepath.Join(l.logs, l.key.ID()+".log") }

func (l *lamp) Up(_ context.Context, obj object.Object) error {
	if l.journal == nil {
		l.journal = journal.Open(l.path(), 0)
	}
	if err := l.blink(obj.(*beacon)); err != nil {
		return err
	}
	l.tell.Event(reconcile.ReasonStarted, "blinks every "+obj.(*beacon).Spec.Interval.String())
	l.tell.Phase(object.Running, "")
	return nil
}

func (l *lamp) blink(b *beacon) error {
	text := fmt.Sprintf("%s %d", b.Spec.Text, l.blinks.Add(1))
	return l.journal.Append(journal.Line{Time: time.Now(), Stream: journal.Stdout, Text: text})
}

func (l *lamp) Attend(ctx context.Context, obj object.Object) error {
	tick := time.NewTicker(obj.(*beacon).Spec.Interval.Std())
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if err := l.blink(obj.(*beacon)); err != nil {
				return err
			}
		}
	}
}

func (l *lamp) Stop(context.Context, object.Object) error { return nil }

func (l *lamp) Halt(context.Context, object.Object) error { return nil }

func (l *lamp) Remove(context.Context, object.Object) error {
	if l.journal == nil {
		return nil
	}
	err := l.journal.Close()
	l.journal = nil
	if err != nil {
		return err
	}
	return journal.Remove(l.path())
}

func (l *lamp) Status(seen object.Observed) object.Status {
	return &beaconStatus{Observed: seen, Blinks: l.blinks.Load()}
}
