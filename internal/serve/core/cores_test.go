package core_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/servetest"
)

// neighbours are models on one processor, of which the first computes.
type neighbours struct {
	*servetest.Rig
	wg    sync.WaitGroup
	mu    sync.Mutex
	order []string
	open  func()
}

// later is when requests of these tests arrive, so that none has to begin soon.
func later() time.Time { return time.Now().Add(time.Minute) }

func newNeighbours(t *testing.T, models ...core.Model) *neighbours {
	n := &neighbours{Rig: servetest.New(t)}
	busy := servetest.Worker(t.TempDir(), "single")
	all := append([]core.Model{{Name: "busy", Instances: core.One(busy), Objective: time.Millisecond}}, models...)
	for i := range all {
		if len(all[i].Instances) == 0 {
			all[i].Instances = core.One(nil)
		}
		for k := range all[i].Instances {
			in := &all[i].Instances[k]
			if in.Starter == nil {
				in.Starter = servetest.Worker(t.TempDir(), "single")
			}
			in.Starter.(*servetest.Exec).Threads = 1
			if in.CPUs == nil {
				in.CPUs = []int{3}
			}
		}
		n.Serve(all[i])
	}
	for _, m := range all {
		n.Wait(m.Name)
	}
	n.open = sync.OnceFunc(func() {
		if err := os.WriteFile(servetest.Marker(busy.Model), nil, 0o600); err != nil {
			t.Error(err)
		}
		n.wg.Wait()
	})
	t.Cleanup(n.open)
	n.ask(core.Request{Model: "busy"}, servetest.Gated)
	for end := time.Now().Add(10 * time.Second); n.Registry.Turns() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the model that keeps the processors busy does not run")
		}
	}
	return n
}

// ask asks behind the test's back and notes when the answer came.
func (n *neighbours) ask(q core.Request, first float32) {
	n.wg.Go(func() {
		_, err := n.Ask(context.WithoutCancel(n.Context()), q, first)
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.order = append(n.order, q.Model); err != nil {
			n.Errorf("%s: %v", q.Model, err)
		}
	})
}

// held waits until so many runs are held.
func (n *neighbours) held(want int) {
	n.Helper()
	for end := time.Now().Add(10 * time.Second); n.Registry.Held() != want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			n.Fatalf("%d runs are held, want %d", n.Registry.Held(), want)
		}
	}
}

// waiting waits until a model computes or is held, and so many requests wait for it.
func (n *neighbours) waiting(model string, want int) {
	n.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		busy, got := n.Registry.Waiting(model)
		if busy && got == want {
			return
		}
		if time.Now().After(end) {
			n.Fatalf("%s: %d requests wait, want %d", model, got, want)
		}
	}
}

// Runs of models that share processors come in the order of their deadlines, what
// was promised before what only clients name.
func TestModelsOnSharedCoresAreOrdered(t *testing.T) {
	n := newNeighbours(t,
		core.Model{Name: "late", Objective: 900 * time.Millisecond}, core.Model{Name: "soon", Objective: 700 * time.Millisecond},
		core.Model{Name: "client"}, core.Model{Name: "default", DefaultTimeout: 800 * time.Millisecond},
		core.Model{Name: "batch", Objective: 100 * time.Millisecond, Precedence: -1})
	at := later()
	for i, q := range []core.Request{
		{Model: "batch"}, {Model: "default"}, {Model: "late"}, {Model: "client", Timeout: 100 * time.Millisecond}, {Model: "soon"},
	} {
		q.Arrived = at
		n.ask(q, servetest.Sloth)
		n.held(i + 1)
	}
	n.open()
	if got, want := strings.Join(n.order, " "), "busy soon late client default batch"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if n.Registry.Turns() != 0 {
		t.Errorf("%d runs are left in the order", n.Registry.Turns())
	}
}

// Nobody is held who has no deadline, no time to spare, or other processors.
func TestWhoIsNotHeld(t *testing.T) {
	n := newNeighbours(t, core.Model{Name: "none"}, core.Model{Name: "late", Objective: 5 * time.Millisecond}, core.Model{Name: "far", Objective: 2 * time.Second},
		core.Model{Name: "elsewhere", Objective: time.Second, Instances: []core.Instance{{CPUs: []int{1, 2, 4}}}}, core.Model{Name: "wide", Objective: time.Second, Instances: []core.Instance{{CPUs: []int{3, 4}}}})
	for _, q := range []core.Request{{Model: "none"}, {Model: "late"}, {Model: "far", Arrived: later()}, {Model: "elsewhere", Arrived: later()}, {Model: "wide", Arrived: later()}} {
		if _, err := n.Ask(t.Context(), q, 2); err != nil {
			t.Errorf("%s: %v", q.Model, err)
		}
	}
}

// What waits behind a run that is held goes to another instance that is idle.
func TestHeldRunLeavesOtherInstancesIdle(t *testing.T) {
	first := servetest.Worker(t.TempDir(), "doubler")
	n := newNeighbours(t, core.Model{Name: "m", Objective: time.Second, Batching: core.Batching{Delay: 200 * time.Millisecond},
		Instances: []core.Instance{{Starter: first, CPUs: []int{3}}, {Starter: first.Again(t), CPUs: []int{5}}}})
	allReady(n.Rig, 2)
	n.ask(core.Request{Model: "m", Arrived: later()}, 1)
	n.waiting("m", 1)
	n.ask(core.Request{Model: "m", Arrived: later()}, 1)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, waiting := n.Registry.Waiting("m"); waiting == 1 && n.Registry.Held() == 1 && allReady(n.Rig, 2).Requests == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("both requests are held by one instance")
		}
	}
}

// A held request holds back none of its model that nobody would hold, whether that
// one comes later or waits already.
func TestHeldLeaderYields(t *testing.T) {
	for kind, heldAfter := range map[string]int{"single": 1, "doubler": 0} { // which joins the held one
		t.Run(kind, func(t *testing.T) {
			gated := servetest.Worker(t.TempDir(), kind)
			n := newNeighbours(t, core.Model{Name: "first", Instances: core.One(servetest.Worker(t.TempDir(), kind))}, core.Model{Name: "then", Instances: core.One(gated)})
			free := func(model string) {
				ctx, cancel := context.WithTimeout(n.Context(), 10*time.Second)
				defer cancel()
				if _, err := n.Ask(ctx, core.Request{Model: model}, 2); err != nil {
					t.Errorf("%s: a request without a deadline beside a held one: %v", model, err)
				}
			}
			n.ask(core.Request{Model: "first", Timeout: time.Second, Arrived: later()}, 2)
			n.held(1)
			free("first")
			n.held(heldAfter)

			n.ask(core.Request{Model: "then"}, servetest.Gated)
			n.waiting("then", 0)
			n.ask(core.Request{Model: "then", Timeout: time.Second, Arrived: later(), Priority: 1}, 2)
			n.waiting("then", 1)
			answered := make(chan bool)
			go func() {
				defer close(answered)
				free("then")
			}()
			n.waiting("then", 2)
			if err := os.WriteFile(servetest.Marker(gated.Model), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			<-answered
			n.held(2 * heldAfter)
		})
	}
}

// A held request leaves with its client, and one that comes meanwhile and is more
// urgent takes the run's place forward.
func TestHeldRequests(t *testing.T) {
	n := newNeighbours(t, core.Model{Name: "a"}, core.Model{Name: "b"})
	ctx, leave := context.WithCancel(t.Context())
	n.wg.Go(func() {
		if _, err := n.Ask(ctx, core.Request{Model: "b", Timeout: time.Second, Arrived: later()}, servetest.Poison); !errors.Is(err, core.ErrCanceled) {
			t.Errorf("a client that left: %v", err)
		}
	})
	n.held(1)
	leave()
	n.held(0)
	at := later()
	n.ask(core.Request{Model: "a", Timeout: time.Second, Arrived: at.Add(30 * time.Second)}, servetest.Sloth)
	n.held(1)
	n.ask(core.Request{Model: "b", Timeout: time.Second, Arrived: at.Add(time.Minute)}, servetest.Sloth)
	n.held(2)
	n.ask(core.Request{Model: "b", Timeout: time.Second, Arrived: at}, servetest.Sloth)
	n.waiting("b", 2)
	n.open()
	if got, want := strings.Join(n.order, " "), "busy b b a"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if s, err := n.Registry.Status("b"); err != nil || s.Restarts != 0 {
		t.Errorf("%+v, %v: it computed what nobody waits for", s, err)
	}
}

// A request that no run of its size could answer in time costs none, until a
// shorter run is worth trying.
func TestHopelessRequestIsNotComputed(t *testing.T) {
	r := servetest.New(t)
	r.Serve(core.Model{Name: "m", Instances: core.One(servetest.Worker(t.TempDir(), "single"))})
	r.Wait("m")
	for range 2 {
		if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, servetest.Sloth); err != nil {
			t.Fatal(err)
		}
	}
	q := core.Request{Model: "m", Timeout: 30 * time.Millisecond}
	if _, err := r.Ask(t.Context(), q, servetest.Sloth); !errors.Is(err, core.ErrExpired) || !strings.Contains(err.Error(), "takes at least") {
		t.Fatalf("got %v", err)
	}
	s, err := r.Registry.Status("m")
	if err != nil || s.Expired != 1 || s.Missed != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	for range 100 {
		if _, err = r.Ask(t.Context(), q, servetest.Sloth); err == nil {
			break
		}
	}
	if s, _ := r.Registry.Status("m"); err != nil || s.Missed != 1 {
		t.Errorf("%v; %d answered too late, want 1", err, s.Missed)
	}
}
