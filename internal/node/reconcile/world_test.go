package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"oscine.dev/oscine/internal/object"
)

// thing is a made-up kind.
type thing struct {
	object.Header
	Spec struct {
		Text string `json:"text,omitempty"`
		// Runs says how it runs: "" forever, "once" until it is done.
		Runs string `json:"runs,omitempty"`
	} `json:"spec"`
}

func (*thing) SetDefaults()          {}
func (*thing) Check(*object.Checker) {}

func newThing(name, text, runs string) *thing {
	obj := &thing{Header: object.Header{APIVersion: object.APIVersion, Kind: "Thing", Metadata: object.Metadata{Name: name}}}
	obj.Spec.Text, obj.Spec.Runs = text, runs
	return obj
}

func keyOf(name string) object.Key { return object.Key{Kind: "Thing", Name: name} }

// disk is what outlives a daemon: stored records.
type disk struct {
	mu      sync.Mutex
	records map[object.Key]*Record
	broken  bool // writes fail
}

var errDisk = errors.New("input/output error")

func (d *disk) locked(f func()) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken {
		return errDisk
	}
	f()
	return nil
}

// starts is how often a stored object is counted as being started.
func (d *disk) starts(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.records[keyOf(name)].Starts
}

func (d *disk) breaks(broken bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = broken
}

func (d *disk) Records() ([]Record, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []Record
	for _, rec := range d.records {
		list = append(list, *rec)
	}
	slices.SortFunc(list, func(a, b Record) int { return len(a.Key.Name) - len(b.Key.Name) })
	return list, nil
}

func (d *disk) Parse(rec Record) (object.Object, error) {
	obj := &thing{}
	err := json.Unmarshal(rec.Manifest, obj)
	if obj.Spec.Text == "bomb" {
		panic(errBomb)
	}
	return obj, err
}

var errBomb = errors.New("the daemon is gone")

func (d *disk) Put(objects []object.Object, now time.Time) error {
	return d.locked(func() {
		for _, obj := range objects {
			rec := Record{Key: obj.Key(), Created: now, Starts: 1}
			if old := d.records[rec.Key]; old != nil {
				rec.Placement, rec.Created = old.Placement, old.Created
			}
			rec.Manifest, _ = json.Marshal(obj)
			d.records[rec.Key] = &rec
		}
	})
}

func (d *disk) each(keys []object.Key, f func(*Record)) error {
	return d.locked(func() {
		for _, key := range keys {
			if rec := d.records[key]; rec != nil {
				f(rec)
			}
		}
	})
}

func (d *disk) Begin(keys ...object.Key) error { return d.each(keys, func(r *Record) { r.Starts++ }) }
func (d *disk) Began(keys ...object.Key) error {
	return d.each(keys, func(r *Record) { r.Starts = 0 })
}
func (d *disk) MarkDeleting(key object.Key) error {
	return d.each([]object.Key{key}, func(r *Record) { r.Deleting = true })
}
func (d *disk) MarkStopped(key object.Key, stopped bool) error {
	return d.each([]object.Key{key}, func(r *Record) {
		if r.Stopped = stopped; !stopped {
			r.Starts = 1
		}
	})
}
func (d *disk) Delete(key object.Key) error {
	return d.locked(func() { delete(d.records, key) })
}

// world is what outlives a daemon: the disk, and what runs on the machine.
type world struct {
	disk

	mu      sync.Mutex
	running map[string]string        // by name, the text it was started with
	ended   map[string]chan struct{} // closed when it crashes or is stopped
	fails   map[string]error         // what its calls fail of
	slow    time.Duration            // of each call
	ups     map[string]int
	notes   []string
	placed  map[string]bool // by Adopt
	lost    map[string]bool // runs on a part of the machine that it has no more
}

func newWorld() *world {
	return &world{disk: disk{records: map[object.Key]*Record{}}, running: map[string]string{}, ended: map[string]chan struct{}{},
		fails: map[string]error{}, ups: map[string]int{}, placed: map[string]bool{}, lost: map[string]bool{}}
}

// boot starts a daemon.
func (w *world) boot(t *testing.T) *Loop {
	t.Helper()
	l := w.open(t)
	if err := l.Load(); err != nil {
		t.Fatal(err)
	}
	l.Start()
	return l
}

func (w *world) open(t *testing.T) *Loop {
	return New(t.Context(), Options{
		Records: &w.disk, Clock: System(), Log: slog.New(slog.DiscardHandler),
		Controllers: map[object.Kind]NewController{"Thing": func(key object.Key, r Reporter) Controller { return &controller{w, key.Name, r} }},
		Adopt:       func(obj object.Object, _ json.RawMessage) { w.placed[obj.Key().Name] = true },
		Vacated: func(obj object.Object) error {
			return w.disk.each([]object.Key{obj.Key()}, func(r *Record) { r.Placement = nil })
		},
		Note: func(key object.Key, reason, message string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.notes = append(w.notes, fmt.Sprintf("%s %s: %s", key.Name, reason, message))
		},
	})
}

// crash ends what runs under a name.
func (w *world) crash(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.halt(name)
}

func (w *world) halt(name string) {
	if _, ok := w.running[name]; ok {
		delete(w.running, name)
		delete(w.lost, name)
		close(w.ended[name])
	}
}

// displace takes the part of the machine from under a name.
func (w *world) displace(l *Loop, name string) {
	w.mu.Lock()
	if _, ok := w.running[name]; ok {
		w.lost[name] = true
	}
	w.mu.Unlock()
	l.Displace(map[string]error{keyOf(name).ID(): errors.New("another needs its place")})
}

func (w *world) fail(name string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fails[name] = err
}

func (w *world) runs() map[string]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.running)
}

func (w *world) noted() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.notes)
}

// controller runs a thing in the world.
type controller struct {
	w    *world
	name string
	r    Reporter
}

// call waits as long as calls take, and says what they fail of.
func (c *controller) call(ctx context.Context) error {
	c.w.mu.Lock()
	slow, err := c.w.slow, c.w.fails[c.name]
	c.w.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return ctx.Err()
	}
	return err
}

func (c *controller) Up(ctx context.Context, obj object.Object) error {
	c.r.Phase(object.Pulling, "")
	if err := c.call(ctx); err != nil {
		return err
	}
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	text := obj.(*thing).Spec.Text
	if _, ok := c.w.running[c.name]; !ok || c.w.running[c.name] != text || c.w.lost[c.name] {
		c.w.halt(c.name)
		c.w.running[c.name], c.w.ended[c.name] = text, make(chan struct{})
		c.w.ups[c.name]++
	}
	c.r.Phase(object.Running, "")
	return nil
}

func (c *controller) Attend(ctx context.Context, obj object.Object) error {
	c.w.mu.Lock()
	ended, ok := c.w.ended[c.name]
	c.w.mu.Unlock()
	if !ok {
		return errors.New("it is not there")
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-ended:
	}
	if obj.(*thing).Spec.Runs == "once" {
		return ErrFinished
	}
	return errors.New("it crashed")
}

func (c *controller) Stop(ctx context.Context, _ object.Object) error {
	err := c.call(ctx)
	if err == nil {
		c.w.crash(c.name)
	}
	return err
}

func (c *controller) Halt(ctx context.Context, obj object.Object) error { return c.Stop(ctx, obj) }

func (c *controller) Remove(ctx context.Context, obj object.Object) error { return c.Stop(ctx, obj) }

func (c *controller) Status(o object.Observed) object.Status { return &o }
