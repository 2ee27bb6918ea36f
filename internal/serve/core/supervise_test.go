package core_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/servetest"
)

// stubborn starts workers that Kill does not reach as long as it is said.
type stubborn struct {
	*servetest.Exec
	cannot  atomic.Bool
	living  atomic.Int32
	started atomic.Int32
}

type stubbornWorker struct {
	core.Worker
	s *stubborn
}

func (s *stubborn) Start(ctx context.Context) (core.Worker, error) {
	if s.living.Load() > 0 {
		return nil, errors.New("started beside a living worker")
	}
	w, err := s.Exec.Start(ctx)
	if err != nil {
		return nil, err
	}
	s.living.Add(1)
	s.started.Add(1)
	return &stubbornWorker{w, s}, nil
}

func (w *stubbornWorker) Wait() error {
	defer w.s.living.Add(-1)
	return w.Worker.Wait()
}

func (w *stubbornWorker) Kill() error {
	if w.s.cannot.Load() {
		return errors.New("containerd does not answer")
	}
	return w.Worker.Kill()
}

func newStubborn(t *testing.T) *stubborn {
	return &stubborn{Exec: servetest.Worker(t.TempDir(), "doubler")}
}

// A worker that cannot be killed holds up nobody forever: Remove says so, the
// model is no longer served, and its name starts no other worker beside it.
func TestRemoveOfWorkerThatCannotBeKilled(t *testing.T) {
	r, s := servetest.New(t), newStubborn(t)
	r.Registry.SetPatience(50 * time.Millisecond)
	r.Serve(core.Model{Name: "m", Instances: core.One(s)})
	r.Wait("m")
	s.cannot.Store(true)
	for range 2 {
		if err := r.Registry.Remove("m"); err == nil || !strings.Contains(err.Error(), "still runs: containerd does not answer") {
			t.Errorf("got %v", err)
		}
	}
	if _, err := r.Registry.Status("m"); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("a removed model: got %v", err)
	}
	r.Serve(core.Model{Name: "m", Instances: core.One(s)}) // waits for the first to end
	time.Sleep(20 * time.Millisecond)
	if n := s.started.Load(); n != 1 {
		t.Errorf("%d workers were started, want 1", n)
	}
	r.Registry.SetPatience(10 * time.Second)
	s.cannot.Store(false)
	r.Wait("m")
	if err := r.Registry.Remove("m"); err != nil || s.started.Load() != 2 || s.living.Load() != 0 {
		t.Errorf("%v; %d started, %d live", err, s.started.Load(), s.living.Load())
	}
}

// A worker that refuses the model ends at once: the model has failed for good,
// with its reason, whichever of the two is noticed first.
func TestRefusalOutlivesItsWorker(t *testing.T) {
	for range 8 {
		r := servetest.New(t)
		s := &stubborn{Exec: servetest.Worker(t.TempDir(), "refuse")}
		r.Serve(core.Model{Name: "m", Instances: core.One(s)})
		err := r.Registry.WaitReady(t.Context(), "m")
		st, _ := r.Registry.Status("m")
		if st.State != core.Failed || !strings.Contains(st.Message, "not a model") || s.started.Load() != 1 {
			t.Errorf("%v: %s %q after %d starts", err, st.State, st.Message, s.started.Load())
		}
	}
}

// A broken worker that cannot be killed at first is killed in the end.
func TestBrokenWorkerIsKilledInTheEnd(t *testing.T) {
	r, s := servetest.New(t), newStubborn(t)
	r.Serve(core.Model{Name: "m", Instances: core.One(s)})
	r.Wait("m")
	s.cannot.Store(true)
	if err := r.Registry.Break(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	for {
		st, err := r.Registry.Status("m")
		if err != nil {
			t.Fatal(err)
		}
		if st.State == core.Waiting && strings.Contains(st.Message, "cannot be killed: containerd does not answer") {
			break
		}
		time.Sleep(time.Millisecond)
	}
	s.cannot.Store(false)
	r.Wait("m")
	if got, err := r.Ask(t.Context(), core.Request{Model: "m"}, 2); err != nil || got.Doubled != 4 {
		t.Errorf("got %v %v", got, err)
	}
}

// The slot of a run that failed is not given to the next request while the worker,
// which is being killed, may still write into it.
func TestSlotIsHeldUntilItsWorkerHasEnded(t *testing.T) {
	r := servetest.New(t)
	s := &stubborn{Exec: testEngine(r, "m", "count")}
	if err := r.Registry.Remove("m"); err != nil {
		t.Fatal(err)
	}
	r.Serve(core.Model{Name: "m", Instances: core.One(s)})
	r.Wait("m")
	s.cannot.Store(true)
	broken := false
	_, err := r.Registry.Infer(t.Context(), core.Request{Model: "m", Inputs: number(1_000_000), Part: func(*core.Response) error {
		if !broken {
			broken = true
			return r.Registry.Break(t.Context(), "m")
		}
		return nil
	}})
	if !errors.Is(err, core.ErrNotReady) {
		t.Errorf("got %v", err)
	}
	if n := r.Registry.FreeSlots("m"); n != core.SlotCount-1 {
		t.Errorf("%d slots are free while the worker lives", n)
	}
	s.cannot.Store(false)
	for end := time.Now().Add(10 * time.Second); r.Registry.FreeSlots("m") != core.SlotCount; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d slots are free after its end", r.Registry.FreeSlots("m"))
		}
	}
}
