package core_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/ensemble"
	"oscine.dev/oscine/internal/serve/servetest"
)

// counting counts the starts of a worker, and fails as long as it is told to.
type counting struct {
	core.Starter
	starts atomic.Int32
	fails  atomic.Bool
	wait   chan struct{} // closed when a start may go on; nil: at once
}

func (c *counting) Start(ctx context.Context) (core.Worker, error) {
	if c.fails.Load() {
		return nil, errors.New("no room for a test")
	}
	if c.starts.Add(1); c.wait != nil {
		select {
		case <-c.wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return c.Starter.Start(ctx)
}

func doubler(t *testing.T) *counting {
	return &counting{Starter: servetest.Worker(t.TempDir(), "doubler")}
}

func state(t *testing.T, r *servetest.Rig, name string) core.Status {
	t.Helper()
	s, err := r.Registry.Status(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// await waits until a model is in a state.
func await(t *testing.T, r *servetest.Rig, name string, want core.State) core.Status {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s := state(t, r, name)
		if s.State == want {
			return s
		}
		if time.Now().After(end) {
			t.Fatalf("model %s is %s (%s), want %s", name, s.State, s.Message, want)
		}
	}
}

// A model is loaded by the first request, which waits, once for all that come, and
// unloaded when there is none.
func TestOnDemand(t *testing.T) {
	r := servetest.New(t)
	starter := doubler(t)
	var unloaded atomic.Int32
	r.Serve(core.Model{Name: "m", Instances: []core.Instance{{Starter: starter, Unloaded: func() { unloaded.Add(1) }}}, Loading: core.Loading{OnDemand: true, Idle: 300 * time.Millisecond}})
	time.Sleep(50 * time.Millisecond)
	if s := state(t, r, "m"); s.State != core.Idle || starter.starts.Load() != 0 {
		t.Fatalf("before a request it is %s, %d workers", s.State, starter.starts.Load())
	}
	if err := r.Registry.Accepts(t.Context(), &core.Request{Model: "m"}); err != nil {
		t.Errorf("a request is not accepted: %v", err)
	}
	for round := int32(1); round <= 2; round++ {
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				if got, err := r.Ask(t.Context(), core.Request{Model: "m"}, float32(i)); err != nil || got.Doubled != float32(2*i) {
					t.Errorf("got %+v, %v", got, err)
				}
			})
		}
		wg.Wait()
		s := await(t, r, "m", core.Idle)
		if starts := starter.starts.Load(); starts != round || s.Loads != int64(round) || s.Restarts != 0 || len(s.Outputs) == 0 {
			t.Errorf("after round %d: %d workers, %+v", round, starts, s)
		}
	}
	if n := unloaded.Load(); n < 2 {
		t.Errorf("its end was told %d times", n)
	}
}

// No request is lost while models are unloaded and loaded without a pause.
func TestUnloadingLosesNothing(t *testing.T) {
	r := servetest.New(t)
	for _, name := range []string{"a", "b"} {
		r.Serve(core.Model{Name: name, Instances: core.One(doubler(t)), Loading: core.Loading{OnDemand: true, Idle: time.Millisecond}})
	}
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Second)
	defer stop()
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				name := []string{"a", "b"}[i%2]
				if got, err := r.Ask(t.Context(), core.Request{Model: name}, float32(n)); err != nil || got.Doubled != float32(2*n) {
					t.Errorf("got %+v, %v", got, err)
				}
				time.Sleep(time.Duration(n%4) * 5 * time.Millisecond)
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			for _, name := range r.Registry.Evictable() {
				r.Registry.Evict(t.Context(), name)
			}
			time.Sleep(2 * time.Millisecond)
		}
	})
	wg.Wait()
	if s := state(t, r, "a"); s.Loads < 3 {
		t.Errorf("it was loaded %d times: the test shows nothing", s.Loads)
	}
}

func TestEvict(t *testing.T) {
	r := servetest.New(t)
	r.Ready("pinned")
	for _, name := range []string{"a", "b", "c"} {
		r.Serve(core.Model{Name: name, Instances: core.One(doubler(t)), Loading: core.Loading{OnDemand: true}})
	}
	for _, name := range []string{"c", "a", "b"} {
		if _, err := r.Ask(t.Context(), core.Request{Model: name}, 1); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(r.Registry.Evictable(), " "); got != "c a b" {
		t.Errorf("could be evicted: %q, want the least recently used first, none that is always loaded", got)
	}
	// One that computes is not taken from its request.
	computed := make(chan error, 1)
	go func() {
		_, err := r.Ask(t.Context(), core.Request{Model: "a"}, servetest.Sloth)
		computed <- err
	}()
	for slices.Contains(r.Registry.Evictable(), "a") {
		time.Sleep(time.Millisecond)
	}
	if r.Registry.Evict(t.Context(), "a") {
		t.Error("a model was evicted while it computed")
	}
	if err := <-computed; err != nil {
		t.Error(err)
	}
	if r.Registry.Evict(t.Context(), "pinned") || r.Registry.Evict(t.Context(), "nobody") {
		t.Error("a model that is always loaded was evicted")
	}
	if !r.Registry.Evict(t.Context(), "c") {
		t.Error("a model that nobody used was not evicted")
	}
	if s := state(t, r, "c"); s.State != core.Idle || s.Evicted != 1 {
		t.Errorf("after the eviction: %+v", s)
	}
	if _, err := r.Ask(t.Context(), core.Request{Model: "c"}, 1); err != nil {
		t.Errorf("after the eviction: %v", err)
	}
}

// A model of which an instance still starts cannot be unloaded, and is not listed.
func TestNotEvictable(t *testing.T) {
	r := servetest.New(t)
	second := doubler(t)
	second.wait = make(chan struct{})
	r.Serve(core.Model{Name: "m", Instances: []core.Instance{{Starter: doubler(t)}, {Starter: second}}, Loading: core.Loading{OnDemand: true}})
	if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, 1); err != nil {
		t.Fatal(err)
	}
	for second.starts.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if got := r.Registry.Evictable(); len(got) > 0 || r.Registry.Evict(t.Context(), "m") {
		t.Errorf("%v can be unloaded, while an instance starts", got)
	}
	close(second.wait)
	for !slices.Contains(r.Registry.Evictable(), "m") {
		time.Sleep(time.Millisecond)
	}
	if !r.Registry.Evict(t.Context(), "m") {
		t.Error("it cannot be unloaded")
	}
}

// A request waits within its deadline, and a load that fails is tried again for
// those that wait and for nobody else.
func TestOnDemandThatFails(t *testing.T) {
	r := servetest.New(t)
	starter := doubler(t)
	starter.fails.Store(true)
	r.Serve(core.Model{Name: "m", Instances: core.One(starter), Loading: core.Loading{OnDemand: true}})
	begin := time.Now()
	_, err := r.Ask(t.Context(), core.Request{Model: "m", Timeout: 400 * time.Millisecond}, 1)
	if !errors.Is(err, core.ErrNotReady) || !strings.Contains(err.Error(), "no room for a test") || time.Since(begin) > 5*time.Second {
		t.Errorf("got %v after %v", err, time.Since(begin))
	}
	if s := await(t, r, "m", core.Idle); !strings.Contains(s.Message, "no room for a test") {
		t.Errorf("it says %q of its last load", s.Message)
	}
	go func() {
		time.Sleep(300 * time.Millisecond)
		starter.fails.Store(false)
	}()
	if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, 1); err != nil {
		t.Errorf("a request that waited: %v", err)
	}
	refused := &counting{Starter: servetest.Worker(t.TempDir(), "refuse")}
	r.Serve(core.Model{Name: "bad", Instances: core.One(refused), Loading: core.Loading{OnDemand: true}})
	if _, err := r.Ask(t.Context(), core.Request{Model: "bad"}, 1); !errors.Is(err, core.ErrNotReady) {
		t.Errorf("a model that does not load: got %v", err)
	}
}

// A replacement of a model on demand is loaded before it takes over; its requests
// go on.
func TestReplaceOnDemand(t *testing.T) {
	r := servetest.New(t)
	loading := core.Loading{OnDemand: true, Idle: 50 * time.Millisecond}
	r.Serve(core.Model{Name: "m", Instances: core.One(doubler(t)), Loading: loading})
	loading.Now = true
	next := doubler(t)
	if err := r.Registry.Replace(t.Context(), core.Model{Name: "m", Version: "2", Instances: core.One(next), Loading: loading}); err != nil || next.starts.Load() != 1 {
		t.Fatalf("got %v, %d workers", err, next.starts.Load())
	}
	await(t, r, "m", core.Idle)
	if got, err := r.Ask(t.Context(), core.Request{Model: "m", Version: "2"}, 3); err != nil || got.Doubled != 6 {
		t.Errorf("got %+v, %v", got, err)
	}
	refused := core.Model{Name: "m", Version: "3", Instances: core.One(servetest.Worker(t.TempDir(), "refuse")), Loading: loading}
	if err := r.Registry.Replace(t.Context(), refused); err == nil {
		t.Error("a model that does not load was taken")
	}
	if got, err := r.Ask(t.Context(), core.Request{Model: "m", Version: "2"}, 3); err != nil || got.Doubled != 6 {
		t.Errorf("after a replacement that failed: got %+v, %v", got, err)
	}
}

// An ensemble has its steps loaded once, to learn what they take, and asks them
// when they are idle.
func TestEnsembleOfModelsOnDemand(t *testing.T) {
	r := servetest.New(t)
	r.Serve(core.Model{Name: "m", Instances: core.One(doubler(t)), Loading: core.Loading{OnDemand: true, Idle: 50 * time.Millisecond}})
	e := &core.Ensemble{Steps: []ensemble.Step{{Model: "m", Inputs: map[string]string{"x": "x"}, Outputs: map[string]string{"y": "y"}}}}
	if err := r.Registry.Add(core.Model{Name: "e", Ensemble: e}); err != nil {
		t.Fatal(err)
	}
	r.Wait("e")
	await(t, r, "m", core.Idle)
	response, err := r.Registry.Infer(t.Context(), core.Request{Model: "e", Inputs: servetest.Row(2)})
	if err != nil {
		t.Fatal(err)
	}
	response.Free()
	if s := state(t, r, "e"); s.State != core.Ready {
		t.Errorf("the ensemble is %s: %s", s.State, s.Message)
	}
}

// A model that is being loaded answers, as one that is idle does, and so does an
// ensemble of it.
func TestAnswersWhileLoading(t *testing.T) {
	r := servetest.New(t)
	starter := doubler(t)
	r.Serve(core.Model{Name: "m", Instances: core.One(starter), Loading: core.Loading{OnDemand: true}})
	e := &core.Ensemble{Steps: []ensemble.Step{{Model: "m", Inputs: map[string]string{"x": "x"}, Outputs: map[string]string{"y": "y"}}}}
	if err := r.Registry.Add(core.Model{Name: "e", Ensemble: e}); err != nil {
		t.Fatal(err)
	}
	r.Wait("e")
	for !r.Registry.Evict(t.Context(), "m") {
		time.Sleep(time.Millisecond)
	}
	starter.wait = make(chan struct{})
	answered := make(chan error, 1)
	go func() {
		_, err := r.Ask(t.Context(), core.Request{Model: "m"}, 1)
		answered <- err
	}()
	await(t, r, "m", core.Starting)
	time.Sleep(50 * time.Millisecond) // for the ensemble to see it
	for _, name := range []string{"m", "e"} {
		if s := state(t, r, name); !s.Answers() {
			t.Errorf("%s is %s (%s) and does not answer", name, s.State, s.Message)
		}
	}
	close(starter.wait)
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// A request waits once as long as a load is tried, and for one that has begun by
// then as long as it takes.
func TestLoadIsTriedForAWhile(t *testing.T) {
	r := servetest.New(t)
	starter := doubler(t)
	starter.fails.Store(true)
	r.Serve(core.Model{Name: "m", Instances: core.One(starter), Loading: core.Loading{OnDemand: true}})
	const tried = 2 * time.Second
	r.Registry.SetRestartWait("m", tried)
	begin := time.Now()
	_, err := r.Ask(t.Context(), core.Request{Model: "m"}, 1)
	if took := time.Since(begin); !errors.Is(err, core.ErrNotReady) || took < tried || took > tried*9/5 {
		t.Errorf("got %v after %v", err, took)
	}

	slow := doubler(t)
	slow.fails.Store(true)
	slow.wait = make(chan struct{})
	r.Serve(core.Model{Name: "slow", Instances: core.One(slow), Loading: core.Loading{OnDemand: true}})
	r.Registry.SetRestartWait("slow", 500*time.Millisecond)
	described := make(chan error, 1)
	go func() {
		_, err := r.Registry.Ready(t.Context(), "slow", "")
		described <- err
	}()
	await(t, r, "slow", core.Waiting)
	slow.fails.Store(false)
	await(t, r, "slow", core.Starting)
	time.Sleep(time.Second)
	close(slow.wait)
	if err := <-described; err != nil {
		t.Errorf("a load that takes longer than it is tried: %v", err)
	}
}
