package core_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/servetest"
)

// asking has clients ask a model without a pause until stop is called, which
// returns how many requests were answered. None may fail.
func asking(t *testing.T, r *servetest.Rig, clients int) (stop func() int64) {
	t.Helper()
	var wg sync.WaitGroup
	var answered atomic.Int64
	done := make(chan struct{})
	for i := range clients {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				first := float32(i)
				if n%50 == 49 {
					first = servetest.Sloth // is under way while the worker is replaced
				}
				if got, err := r.Ask(t.Context(), core.Request{Model: "m"}, first); err != nil || got.Doubled != 2*first {
					t.Errorf("client %d: got %+v, %v", i, got, err)
					return
				}
				answered.Add(1)
			}
		})
	}
	return func() int64 {
		close(done)
		wg.Wait()
		return answered.Load()
	}
}

func TestReplacementsLoseNoRequest(t *testing.T) {
	for name, replace := range map[string]func(*core.Registry, context.Context, core.Model) error{"beside": (*core.Registry).Replace, "in turn": (*core.Registry).ReplaceInTurn} {
		t.Run(name, func(t *testing.T) {
			r := servetest.New(t)
			r.Ready("m")
			stop := asking(t, r, 4)
			for i := range 5 {
				if err := replace(r.Registry, t.Context(), core.Model{Name: "m", Instances: core.One(servetest.Worker(t.TempDir(), "doubler"))}); err != nil {
					t.Errorf("replacement %d: %v", i, err)
				}
			}
			answered := stop()
			if s, err := r.Registry.Status("m"); err != nil || s.Requests != answered || s.State != core.Ready {
				t.Errorf("%d requests were answered, the status is %+v, %v", answered, s, err)
			}
		})
	}
}

func TestReplacementThatDoesNotLoad(t *testing.T) {
	r := servetest.New(t)
	r.Ready("m")
	stop := asking(t, r, 2)
	bad := core.Model{Name: "m", Instances: core.One(servetest.Worker(t.TempDir(), "refuse"))}
	if err := r.Registry.Replace(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "not a model") {
		t.Errorf("got %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	good := core.Model{Name: "m", Instances: core.One(servetest.Worker(t.TempDir(), "doubler"))}
	if err := r.Registry.Replace(gone, good); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	if err := r.Registry.Replace(t.Context(), core.Model{Name: "other", Instances: good.Instances}); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("of no model: %v", err)
	}
	stop()
	// Where there is room for one only, what fails stays until the next.
	if err := r.Registry.ReplaceInTurn(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "not a model") {
		t.Errorf("in turn: %v", err)
	}
	if err := r.Registry.ReplaceInTurn(t.Context(), good); err != nil {
		t.Errorf("after it: %v", err)
	}
	if got, err := r.Ask(t.Context(), core.Request{Model: "m"}, 2); err != nil || got.Doubled != 4 {
		t.Errorf("at last: %+v, %v", got, err)
	}
}

// known remembers the worker that it started.
type known struct {
	core.Starter
	worker core.Worker
}

func (k *known) Start(ctx context.Context) (core.Worker, error) {
	w, err := k.Starter.Start(ctx)
	k.worker = w
	return w, err
}

// What was accepted is answered, though the model goes.
func TestUnloadAnswersWhatItHas(t *testing.T) {
	for name, unload := range map[string]func(*core.Registry){
		"removed": func(r *core.Registry) { _ = r.Remove("m") },
		"closed":  func(r *core.Registry) { r.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			r := servetest.New(t)
			starter := &known{Starter: servetest.Worker(t.TempDir(), "doubler")}
			r.Serve(core.Model{Name: "m", Instances: core.One(starter)})
			r.Wait("m")
			defer func() { _ = starter.worker.Kill() }() // a daemon that ends leaves it
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					if got, err := r.Ask(t.Context(), core.Request{Model: "m"}, servetest.Sloth); err != nil || got.Doubled != 2*servetest.Sloth {
						t.Errorf("got %+v, %v", got, err)
					}
				})
			}
			for busy := false; !busy; time.Sleep(time.Millisecond) {
				busy, _ = r.Registry.Waiting("m")
			}
			unload(r.Registry)
			wg.Wait()
		})
	}
}

func TestVersionsSideBySide(t *testing.T) {
	r := servetest.New(t)
	for _, version := range []string{"9", "10"} {
		r.Serve(core.Model{Name: "m-" + version, ServedAs: "m", Version: version})
		r.Wait("m-" + version)
	}
	asked := func(version, want string) {
		t.Helper()
		response, err := r.Registry.Infer(t.Context(), core.Request{Model: "m", Version: version, Inputs: servetest.Row(2)})
		if err != nil || response.Version != want {
			t.Errorf("version %q is answered by %q, %v; want %s", version, response.Version, err, want)
		}
	}
	asked("9", "9")
	asked("10", "10")
	asked("", "10")
	if s, err := r.Registry.StatusOf(t.Context(), "m", ""); err != nil || s.Version != "10" || strings.Join(s.Versions, " ") != "9 10" {
		t.Errorf("status %+v, %v", s, err)
	}
	// Back at once, while both go on; then the new one as a shadow.
	none := 0
	if err := r.Registry.Route("m-10", core.Routing{Traffic: &none}); err != nil {
		t.Fatal(err)
	}
	asked("", "9")
	asked("10", "10")
	if err := r.Registry.Route("m-10", core.Routing{Shadow: true}); err != nil {
		t.Fatal(err)
	}
	requests := func() int64 {
		s, err := r.Registry.Status("m-10")
		if err != nil || s.Errors != 0 {
			t.Errorf("shadow: %+v, %v", s, err)
		}
		return s.Requests
	}
	before := requests()
	asked("", "9")
	for end := time.Now().Add(10 * time.Second); requests() == before && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	if requests() != before+1 {
		t.Error("the shadow computes nothing")
	}
	for _, to := range []core.Routing{{Traffic: &none, Shadow: true}, {Traffic: new(int)}} {
		*to.Traffic = 0
		if err := r.Registry.Route("m-10", to); (err == nil) == to.Shadow {
			t.Errorf("%+v: %v", to, err)
		}
	}
	if err := r.Registry.Remove("m-10"); err != nil {
		t.Fatal(err)
	}
	asked("", "9")
}

// failing starts no worker.
type failing struct{ core.Starter }

func (failing) Start(context.Context) (core.Worker, error) { return nil, errors.New("no room") }

// What waits for a worker that never was ready does not hold up the next one,
// which answers it.
func TestReplacementThatNeverCameIsReplacedAtOnce(t *testing.T) {
	r := servetest.New(t)
	r.Ready("m")
	if err := r.Registry.ReplaceInTurn(t.Context(), core.Model{Name: "m", Instances: core.One(failing{})}); err == nil {
		t.Fatal("a worker that does not start is served")
	}
	answered := make(chan error, 1)
	go func() {
		_, err := r.Ask(t.Context(), core.Request{Model: "m"}, 2)
		answered <- err
	}()
	time.Sleep(50 * time.Millisecond) // it most often waits by then
	begin := time.Now()
	if err := r.Registry.ReplaceInTurn(t.Context(), core.Model{Name: "m", Instances: core.One(servetest.Worker(t.TempDir(), "doubler"))}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 9*time.Second {
		t.Errorf("took %v", took)
	}
	if err := <-answered; err != nil {
		t.Errorf("the request that waited: %v", err)
	}
}
