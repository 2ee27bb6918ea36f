package core_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/servetest"
)

func TestBatching(t *testing.T) {
	r := servetest.New(t)
	r.Ready("m")
	var wg sync.WaitGroup
	var mu sync.Mutex
	largest := 0
	for i := range 40 {
		wg.Go(func() {
			first := float32(i)
			if i%10 == 0 {
				first = servetest.Sloth
			}
			got, err := r.Ask(t.Context(), core.Request{Model: "m"}, first)
			if err != nil || got.Doubled != 2*first {
				t.Errorf("request %d: got %g, want %g (%v)", i, got.Doubled, 2*first, err)
			}
			mu.Lock()
			largest = max(largest, got.Shared)
			mu.Unlock()
		})
	}
	wg.Wait()
	if largest < 2 {
		t.Error("no two of 40 concurrent requests shared a run")
	}
	if s, err := r.Registry.Status("m"); err != nil || s.Requests != 40 || s.Errors != 0 || s.P50 <= 0 || s.P99 < s.P50 {
		t.Errorf("status %+v, %v", s, err)
	}
}

func TestWorkerDeath(t *testing.T) {
	r := servetest.New(t)
	r.Ready("a")
	r.Ready("b")
	if got, err := r.Ask(t.Context(), core.Request{Model: "a"}, servetest.Once); err != nil || got.Doubled != 2*servetest.Once {
		t.Errorf("a request whose worker died once must be retried: got %v %v", got, err)
	}
	// While one client keeps killing a's worker, the other requests to a are
	// answered and b notices nothing.
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := r.Ask(t.Context(), core.Request{Model: "a"}, servetest.Poison); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "failed during the inference") {
			t.Errorf("poison: got %v", err)
		}
	})
	for i := range 20 {
		for _, model := range []string{"a", "b"} {
			wg.Go(func() {
				if got, err := r.Ask(t.Context(), core.Request{Model: model}, float32(i)); err != nil || got.Doubled != float32(2*i) {
					t.Errorf("%s, request %d: got %v %v", model, i, got, err)
				}
			})
		}
	}
	wg.Wait()
	a, errA := r.Registry.Status("a")
	b, errB := r.Registry.Status("b")
	if errA != nil || errB != nil || a.Restarts < 3 || b.Restarts != 0 {
		t.Errorf("restarts: a %d, want at least 3; b %d, want 0 (%v, %v)", a.Restarts, b.Restarts, errA, errB)
	}
}

func TestStuckWorkerIsKilled(t *testing.T) {
	r := servetest.New(t)
	r.Serve(core.Model{Name: "m", Timeout: 200 * time.Millisecond})
	r.Wait("m")
	if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, servetest.Stuck); !errors.Is(err, core.ErrNotReady) {
		t.Errorf("got %v", err)
	}
	if got, err := r.Ask(t.Context(), core.Request{Model: "m"}, 2); err != nil || got.Doubled != 4 {
		t.Errorf("after the stuck request: got %v %v", got, err)
	}
}

func TestRegistry(t *testing.T) {
	r := servetest.New(t)
	r.Ready("m")
	if err := r.Registry.Add(core.Model{Name: "m", Instances: core.One(&servetest.Exec{})}); err == nil || !strings.Contains(err.Error(), "already served") {
		t.Errorf("a name twice: got %v", err)
	}
	if err := r.Registry.Add(core.Model{Name: "../m", Instances: core.One(&servetest.Exec{})}); err == nil {
		t.Error("a bad name was accepted")
	}
	names := []string{}
	for _, s := range r.Registry.List(t.Context()) {
		names = append(names, s.Name)
	}
	if diff := cmp.Diff([]string{"m"}, names); diff != "" {
		t.Error(diff)
	}
	if err := r.Registry.Remove("m"); err != nil {
		t.Error(err)
	}
	if err := r.Registry.Remove("m"); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("removed twice: got %v", err)
	}
	if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, 1); !errdefs.IsNotFound(err) {
		t.Errorf("a removed model answers %v", err)
	}
}

// An answer stays as it is while later ones are made, and is made out of memory
// that was given back.
func TestAnswersAreTheirOwn(t *testing.T) {
	r := servetest.New(t)
	r.Ready("m")
	q := core.Request{Model: "m", Outputs: []string{"y"}, Inputs: servetest.Row(3)}
	first, err := r.Registry.Infer(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	want := string(first.Outputs[0].Data)
	q.Inputs = servetest.Row(4)
	for range 3 {
		next, err := r.Registry.Infer(t.Context(), q)
		if err != nil || len(next.Outputs) != 1 || next.Outputs[0].Name != "y" {
			t.Fatalf("%+v %v", next, err)
		}
		next.Free()
	}
	if got := string(first.Outputs[0].Data); got != want {
		t.Errorf("the first answer became %x, want %x", got, want)
	}
}

// A follower of a model gets its states and need not poll.
func TestChangesOfStateAreTold(t *testing.T) {
	r := servetest.New(t)
	told := make(chan struct{}, 1)
	change := func() {
		select {
		case told <- struct{}{}:
		default:
		}
	}
	r.Serve(core.Model{Name: "m", OnChange: change})
	await := func(want core.State) {
		t.Helper()
		for {
			s, err := r.Registry.Status("m")
			if err != nil {
				t.Fatal(err)
			}
			if s.State == want {
				return
			}
			select {
			case <-told:
			case <-time.After(10 * time.Second):
				t.Fatalf("nothing was reported, and the model is %s, want %s", s.State, want)
			}
		}
	}
	await(core.Ready)
	if err := r.Registry.Break(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	await(core.Waiting)
	await(core.Ready)
}

// Clients ask for a model by the name it is served as, its owner by its own.
func TestModelServedUnderAnotherName(t *testing.T) {
	r := servetest.New(t)
	r.Serve(core.Model{Name: "m", ServedAs: "Doubler_v1.5"})
	r.Wait("m")
	response, err := r.Registry.Infer(t.Context(), core.Request{Model: "Doubler_v1.5", Inputs: servetest.Row(2)})
	if err != nil || response.Model != "Doubler_v1.5" {
		t.Errorf("%+v %v", response, err)
	}
	if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, 2); !errdefs.IsNotFound(err) {
		t.Errorf("asked for by its owner's name: %v", err)
	}
	s, err := r.Registry.Status("m")
	if err != nil || s.Name != "m" || s.ServedAs != "Doubler_v1.5" {
		t.Errorf("%+v %v", s, err)
	}
	if err := r.Registry.Add(core.Model{Name: "n", ServedAs: "Doubler_v1.5", Instances: core.One(&servetest.Exec{})}); err == nil || !strings.Contains(err.Error(), "version 1 of Doubler_v1.5 is model m") {
		t.Errorf("a name that clients use for another: %v", err)
	}
	for _, name := range []string{"../m", "a b", "a/b", ".hidden", strings.Repeat("x", 256)} {
		if err := r.Registry.Add(core.Model{Name: "n", ServedAs: name, Instances: core.One(&servetest.Exec{})}); err == nil {
			t.Errorf("%q was accepted", name)
		}
	}
	if err := r.Registry.Remove("m"); err != nil {
		t.Error(err)
	}
	if _, err := r.Registry.StatusOf(t.Context(), "Doubler_v1.5", ""); !errdefs.IsNotFound(err) {
		t.Errorf("after it was removed: %v", err)
	}
}
