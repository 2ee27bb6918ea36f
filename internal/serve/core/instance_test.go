package core_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/servetest"
)

// handle starts workers that a test kills, or for which there is no room.
type handle struct {
	core.Starter
	noRoom atomic.Bool
	ended  atomic.Int32 // calls of unloaded
	mu     sync.Mutex
	worker core.Worker
	starts int
}

func (h *handle) Start(ctx context.Context) (core.Worker, error) {
	if h.noRoom.Load() {
		return nil, errors.New("no room: it is a test")
	}
	w, err := h.Starter.Start(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.worker = w
	h.starts++
	return w, err
}

func (h *handle) kill(t testing.TB) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.worker.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
}

func (h *handle) started() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.starts
}

// instances are n of one model of a kind.
func instances(t *testing.T, n int, kind string) (handles []*handle, list []core.Instance) {
	first := servetest.Worker(t.TempDir(), kind)
	for i := range n {
		h := &handle{Starter: first}
		if i > 0 {
			h.Starter = first.Again(t)
		}
		handles = append(handles, h)
		list = append(list, core.Instance{Starter: h, Unloaded: func() { h.ended.Add(1) }})
	}
	return handles, list
}

// allReady waits until so many instances of the model m are ready.
func allReady(r *servetest.Rig, want int) core.Status {
	r.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		s, err := r.Registry.Status("m")
		ready := 0
		for _, in := range s.Instances {
			if in.State == core.Ready {
				ready++
			}
		}
		if err == nil && ready == want {
			return s
		}
		if time.Now().After(end) {
			r.Fatalf("%d instances are ready, want %d: %+v, %v", ready, want, s, err)
		}
	}
}

// Requests of one queue go to the first instance that is idle.
func TestInstancesAnswerTogether(t *testing.T) {
	r := servetest.New(t)
	_, list := instances(t, 3, "single")
	r.Serve(core.Model{Name: "m", Instances: list})
	if s := allReady(r, 3); s.State != core.Ready || s.Message != "" {
		t.Errorf("got %+v", s)
	}
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			if got, err := r.Ask(t.Context(), core.Request{Model: "m"}, servetest.Sloth); err != nil || got.Doubled != 2*servetest.Sloth {
				t.Errorf("request %d: got %v, %v", i, got, err)
			}
		})
	}
	wg.Wait()
	s := allReady(r, 3)
	var runs int64
	for i, in := range s.Instances {
		if runs += in.Runs; in.Runs < 5 {
			t.Errorf("instance %d computed %d of 30 runs of equal length", i+1, in.Runs)
		}
	}
	if runs != 30 || s.Requests != 30 || s.Errors != 0 {
		t.Errorf("%d runs, %+v", runs, s)
	}
	// What the workers count is added up.
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		work, err := r.Registry.Work("m")
		if err == nil && work.Requests == 30 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the workers count %+v, %v", work, err)
		}
	}
	// One client waits for nobody: its requests stay where the caches are warm.
	for range 20 {
		if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, 1); err != nil {
			t.Fatal(err)
		}
	}
	if after := allReady(r, 3); after.Instances[0].Runs != s.Instances[0].Runs+20 {
		t.Errorf("one client's requests went to several instances: %+v, before %+v", after.Instances, s.Instances)
	}
}

// An instance that dies takes nothing with it: what it had is answered by another,
// each request once, with its own answer.
func TestInstancesThatDie(t *testing.T) {
	r := servetest.New(t)
	handles, list := instances(t, 3, "doubler")
	r.Serve(core.Model{Name: "m", Instances: list})
	allReady(r, 3)
	ctx, stop := context.WithCancel(t.Context())
	var clients, killer sync.WaitGroup
	killer.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			if allReady(r, 3); ctx.Err() == nil {
				handles[i%3].kill(t)
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	var answered atomic.Int64
	for c := range 12 {
		clients.Go(func() {
			for i := range 150 {
				x := float32(1000 + c*1000 + i)
				got, err := r.Ask(t.Context(), core.Request{Model: "m"}, x)
				if err != nil || got.Doubled != 2*x {
					t.Errorf("client %d, request %d: got %v, want %v (%v)", c, i, got.Doubled, 2*x, err)
				}
				answered.Add(1)
				time.Sleep(time.Millisecond)
			}
		})
	}
	clients.Wait()
	stop()
	killer.Wait()
	s := allReady(r, 3)
	if answered.Load() != 12*150 || s.Requests != 12*150 || s.Errors != 0 || s.Restarts == 0 {
		t.Errorf("%d answers, %+v", answered.Load(), s)
	}
	if free := r.Registry.FreeSlots("m"); free != core.SlotCount {
		t.Errorf("%d of %d slots are free", free, core.SlotCount)
	}
}

// A request that kills every worker costs its own answer only; one that killed one
// is answered by another instance.
func TestPoisonAmongInstances(t *testing.T) {
	r := servetest.New(t)
	handles, list := instances(t, 2, "single")
	r.Serve(core.Model{Name: "m", Instances: list})
	allReady(r, 2)
	if got, err := r.Ask(t.Context(), core.Request{Model: "m"}, servetest.Once); err != nil || got.Doubled != 2*servetest.Once {
		t.Errorf("a request whose worker died once: got %v, %v", got, err)
	}
	s := allReady(r, 2)
	if s.Restarts != 1 {
		t.Errorf("got %+v", s)
	}
	if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, servetest.Poison); !errors.Is(err, core.ErrNotReady) {
		t.Errorf("poison: got %v", err)
	}
	// Both are gone: what comes waits for the first that is back.
	if got, err := r.Ask(t.Context(), core.Request{Model: "m"}, 3); err != nil || got.Doubled != 6 {
		t.Errorf("after poison: got %v, %v", got, err)
	}
	if allReady(r, 2); handles[0].started()+handles[1].started() != 5 {
		t.Errorf("%d and %d starts, want 5 together", handles[0].started(), handles[1].started())
	}
}

// What is tried again is not given to another instance before the worker that had it
// has ended, which might write into its slot. Others are not held up by that.
func TestStuckInstance(t *testing.T) {
	r, s := servetest.New(t), newStubborn(t)
	s.cannot.Store(true)
	t.Cleanup(func() { s.cannot.Store(false) })
	r.Serve(core.Model{Name: "m", Timeout: time.Second, Instances: []core.Instance{{Starter: s}, {Starter: s.Exec.Again(t)}}})
	allReady(r, 2)
	stuck := make(chan error, 1)
	go func() {
		_, err := r.Ask(context.WithoutCancel(t.Context()), core.Request{Model: "m"}, servetest.Stuck)
		stuck <- err
	}()
	allReady(r, 1) // the run has taken too long, and its worker cannot be killed
	for range 30 { // longer than the other one would be stuck too, had it the request
		if got, err := r.Ask(t.Context(), core.Request{Model: "m"}, 2); err != nil || got.Doubled != 4 {
			t.Fatalf("beside it: got %v, %v", got, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if st, err := r.Registry.Status("m"); err != nil || st.Instances[1].Restarts != 0 || st.Instances[1].State != core.Ready || !strings.Contains(st.Message, "1 of 2 instances are ready; instance 1 is waiting: the worker cannot be killed") {
		t.Errorf("got %+v, %v", st, err)
	}
	select {
	case err := <-stuck:
		t.Errorf("the request ended beside a worker that has it: %v", err)
	default:
	}
	s.cannot.Store(false)
	if err := <-stuck; !errors.Is(err, core.ErrNotReady) { // it is stuck in the other one too
		t.Errorf("got %v", err)
	}
	if got, err := r.Ask(t.Context(), core.Request{Model: "m"}, 5); err != nil || got.Doubled != 10 {
		t.Errorf("got %v, %v", got, err)
	}
	allReady(r, 2)
}

// A model answers with the instances that there is room for, and says what the others
// lack, until they have it.
func TestInstanceWithoutRoom(t *testing.T) {
	r := servetest.New(t)
	handles, list := instances(t, 2, "single")
	handles[0].noRoom.Store(true)
	r.Serve(core.Model{Name: "m", Instances: list})
	r.Wait("m")
	s := allReady(r, 1)
	if want := "1 of 2 instances are ready; instance 1 is waiting: start the worker: no room: it is a test"; s.State != core.Ready || !s.Answers() || s.Message != want && s.Message != strings.Split(want, " waiting")[0]+" starting" {
		t.Errorf("got %+v, want %q", s, want)
	}
	if got, err := r.Ask(t.Context(), core.Request{Model: "m"}, 2); err != nil || got.Doubled != 4 {
		t.Errorf("got %v, %v", got, err)
	}
	handles[0].noRoom.Store(false)
	if s := allReady(r, 2); s.Message != "" {
		t.Errorf("got %+v", s)
	}
	// A model of which no instance has room waits, and says why.
	handles[0].noRoom.Store(true)
	handles[1].noRoom.Store(true)
	for i := range handles {
		handles[i].kill(t)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		s, err := r.Registry.Status("m")
		if err == nil && s.State == core.Waiting && strings.Contains(s.Message, "no room") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("got %+v, %v", s, err)
		}
	}
}

// A model is replaced by one with another number of instances, and loses no request.
func TestReplaceInstances(t *testing.T) {
	r := servetest.New(t)
	r.Ready("m")
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for c := range 4 {
		clients.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				x := float32(1000 + 1000*c + i%100)
				if got, err := r.Ask(t.Context(), core.Request{Model: "m"}, x); err != nil || got.Doubled != 2*x {
					t.Errorf("got %v, want %v (%v)", got.Doubled, 2*x, err)
				}
			}
		})
	}
	for _, n := range []int{3, 1, 2} {
		_, list := instances(t, n, "doubler")
		if err := r.Registry.Replace(t.Context(), core.Model{Name: "m", Instances: list}); err != nil {
			t.Errorf("%d instances: %v", n, err)
		}
		if s, err := r.Registry.Status("m"); err != nil || len(s.Instances) != n {
			t.Errorf("%d instances: %+v, %v", n, s, err)
		}
		allReady(r, n) // all were ready before it was replaced
	}
	_, list := instances(t, 2, "refuse")
	if err := r.Registry.Replace(t.Context(), core.Model{Name: "m", Instances: list}); err == nil || !strings.Contains(err.Error(), "not a model") {
		t.Errorf("two that refuse the model: got %v", err)
	}
	stop()
	clients.Wait()
	if s := allReady(r, 2); s.Errors != 0 {
		t.Errorf("got %+v", s)
	}
}

// All instances of a model on demand are loaded by the first request, and unloaded
// together.
func TestInstancesOnDemand(t *testing.T) {
	r := servetest.New(t)
	handles, list := instances(t, 2, "doubler")
	r.Serve(core.Model{Name: "m", Instances: list, Loading: core.Loading{OnDemand: true, Idle: 200 * time.Millisecond}})
	unloads := func(want int32) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			s, err := r.Registry.Status("m")
			if err == nil && s.State == core.Idle && handles[0].ended.Load() == want && handles[1].ended.Load() == want {
				if s.Restarts != 0 {
					t.Errorf("unloading counts as a restart: %+v", s)
				}
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%d and %d calls of Unloaded, want %d: %+v, %v", handles[0].ended.Load(), handles[1].ended.Load(), want, s, err)
			}
		}
	}
	unloads(1) // before they were ever loaded
	for load := range int32(3) {
		if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, 2); err != nil {
			t.Fatal(err)
		}
		if load == 1 {
			allReady(r, 2)
			handles[0].kill(t) // it comes back with no request for it
			for handles[0].started() != 3 {
				if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, 2); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Millisecond)
			}
			allReady(r, 2)
			if !r.Registry.Evict(t.Context(), "m") {
				t.Error("it was not evicted")
			}
			if s, err := r.Registry.Status("m"); err != nil || s.State != core.Idle {
				t.Errorf("after it was evicted: %+v, %v", s, err)
			}
			break
		}
		unloads(2)
	}
	if s, err := r.Registry.Status("m"); err != nil || s.Evicted != 1 || s.Loads < 4 {
		t.Errorf("got %+v, %v", s, err)
	}
}

// However many instances are idle, one batch forms at a time.
func TestInstancesFormOneBatch(t *testing.T) {
	r := servetest.New(t)
	_, list := instances(t, 2, "doubler")
	r.Serve(core.Model{Name: "m", Instances: list, Batching: core.Batching{Delay: 10 * time.Second, PreferredRows: []int{8}}})
	allReady(r, 2)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if got, err := r.Ask(t.Context(), core.Request{Model: "m"}, float32(i)); err != nil || got.Shared != 8 {
				t.Errorf("got %+v, %v, want all 8 in one run", got, err)
			}
		})
	}
	wg.Wait()
}

// The state of a sequence is the node's: it survives the worker that computed last.
func TestSequencesAmongInstances(t *testing.T) {
	r := servetest.New(t)
	first := servetest.Engine(t, "total")
	handles := []*handle{{Starter: first}, {Starter: first.Again(t)}}
	r.Serve(core.Model{Name: "m", Instances: []core.Instance{{Starter: handles[0]}, {Starter: handles[1]}},
		Sequencing: core.Sequencing{States: []core.KeptState{{Input: "before", Output: "after"}}}})
	allReady(r, 2)
	var wg sync.WaitGroup
	for c := range 8 {
		wg.Go(func() {
			want := 0
			for i := range 40 {
				got, err := next(r, "", core.Sequence{ID: fmt.Sprint(c), Start: i == 0}, int32(c+i))
				if want += c + i; err != nil || got != want {
					t.Errorf("sequence %d, request %d: got %d, want %d (%v)", c, i, got, want, err)
				}
				if c == 0 && i == 20 {
					handles[0].kill(t)
				}
			}
		})
	}
	wg.Wait()
	if s := allReady(r, 2); s.Restarts != 1 || s.Errors != 0 {
		t.Errorf("got %+v", s)
	}
}

// A model without a worker, or with one that nothing starts, is refused.
func TestNoInstance(t *testing.T) {
	r := servetest.New(t)
	if err := r.Registry.Add(core.Model{Name: "m"}); err == nil || !strings.Contains(err.Error(), "has no instance") {
		t.Errorf("without instances: got %v", err)
	}
	if err := r.Registry.Add(core.Model{Name: "m", Instances: make([]core.Instance, 1)}); err == nil {
		t.Error("an instance that nothing starts was accepted")
	}
}

// Requests that wait for a worker wait for it together, whether they share runs or not.
func TestRequestsWaitForAWorkerTogether(t *testing.T) {
	for _, kind := range []string{"single", "doubler"} {
		r := servetest.New(t)
		handles, list := instances(t, 1, kind)
		r.Serve(core.Model{Name: "m", Instances: list})
		allReady(r, 1)
		r.Registry.SetRestartWait("m", time.Second)
		handles[0].noRoom.Store(true)
		handles[0].kill(t)
		allReady(r, 0)
		begin := time.Now()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, 1); !errors.Is(err, core.ErrNotReady) {
					t.Errorf("%s: got %v", kind, err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(begin); took > 4*time.Second {
			t.Errorf("%s: eight requests waited %v, each may wait a second", kind, took)
		}
		handles[0].noRoom.Store(false)
		r.Registry.SetRestartWait("m", 20*time.Second)
		if got, err := r.Ask(t.Context(), core.Request{Model: "m"}, 3); err != nil || got.Doubled != 6 {
			t.Errorf("%s: got %v, %v", kind, got, err)
		}
	}
}
