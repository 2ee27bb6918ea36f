package core_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/servetest"
)

// evicting has a model unloaded before it says that there is no room.
type evicting struct {
	r       *servetest.Rig
	victim  string
	evicted chan bool // what came of it
}

func (g *evicting) Start(ctx context.Context) (core.Worker, error) {
	done := g.r.Registry.Evict(ctx, g.victim)
	select {
	case g.evicted <- done:
	case <-ctx.Done():
	}
	return nil, errors.New("no room: it is a test")
}

// A model on demand is not unloaded while one of its instances starts: that one may
// be having models unloaded, its own or one that does the same.
func TestInstancesThatEvict(t *testing.T) {
	for _, victims := range []map[string]string{{"a": "a"}, {"a": "b", "b": "a"}} {
		r := servetest.New(t)
		var all []*evicting
		for name, victim := range victims {
			g := &evicting{r: r, victim: victim, evicted: make(chan bool)}
			all = append(all, g)
			r.Serve(core.Model{Name: name, Instances: []core.Instance{{Starter: servetest.Worker(t.TempDir(), "doubler")}, {Starter: g}}, Loading: core.Loading{OnDemand: true}})
		}
		ask := func() {
			for name := range victims {
				if _, err := r.Ask(t.Context(), core.Request{Model: name}, 1); err != nil {
					t.Fatal(err)
				}
			}
		}
		for range 4 {
			for _, g := range all { // all are in Evict at once, or wait after it
				for end := time.Now().Add(10 * time.Second); ; {
					if ask(); time.Now().After(end) {
						t.Fatalf("%v: one that evicts %s does not return", victims, g.victim)
					}
					select {
					case <-g.evicted:
					case <-time.After(100 * time.Millisecond):
						continue
					}
					break
				}
			}
		}
	}
}

// lingering are workers whose end is not seen before it is told to.
type lingering struct {
	*servetest.Exec
	end chan struct{}
}

type lingeringWorker struct {
	core.Worker
	end chan struct{}
}

func (l *lingering) Start(ctx context.Context) (core.Worker, error) {
	w, err := l.Exec.Start(ctx)
	return &lingeringWorker{w, l.end}, err
}

func (w *lingeringWorker) Wait() error {
	err := w.Worker.Wait()
	<-w.end
	return err
}

// An instance that refuses the model while it is unloaded holds up no eviction later.
func TestInstanceThatRefusesWhileUnloaded(t *testing.T) {
	r := servetest.New(t)
	bad := &lingering{servetest.Worker(t.TempDir(), "refuse"), make(chan struct{})}
	r.Serve(core.Model{Name: "m", Instances: []core.Instance{{Starter: servetest.Worker(t.TempDir(), "doubler")}, {Starter: bad}}, Loading: core.Loading{OnDemand: true, Idle: 2 * time.Second}})
	if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, 1); err != nil {
		t.Fatal(err)
	}
	await(t, r, "m", core.Idle) // the second has refused the model by then
	close(bad.end)
	for end := time.Now().Add(10 * time.Second); state(t, r, "m").Instances[1].State != core.Failed; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("got %+v", state(t, r, "m"))
		}
	}
	if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, 1); err != nil {
		t.Fatal(err)
	}
	if !r.Registry.Evict(t.Context(), "m") {
		t.Error("it was not evicted")
	}
}

// Who has a model unloaded waits for a worker that does not end no longer than others
// do.
func TestEvictOfWorkerThatCannotBeKilled(t *testing.T) {
	r, s := servetest.New(t), newStubborn(t)
	r.Serve(core.Model{Name: "m", Instances: core.One(s), Loading: core.Loading{OnDemand: true}})
	if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, 1); err != nil {
		t.Fatal(err)
	}
	s.cannot.Store(true)
	r.Registry.SetPatience(50 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if r.Registry.Evict(ctx, "m") || ctx.Err() != nil {
		t.Errorf("got %v, want that it reports that there is no room", ctx.Err())
	}
	r.Registry.SetPatience(10 * time.Second)
	s.cannot.Store(false)
	await(t, r, "m", core.Idle)
	if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, 1); err != nil {
		t.Errorf("after it could be killed: %v", err)
	}
}
