package core_test

import (
	"encoding/binary"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/servetest"
)

// A model that is taken for one of independent rows, and is not, is found out.
func TestJoinedAnswersAreChecked(t *testing.T) {
	r := servetest.New(t)
	testEngine(r, "m", "mean")
	var wg sync.WaitGroup
	stopped := func() string {
		s, err := r.Registry.Status("m")
		if err != nil {
			t.Error(err)
		}
		return s.BatchingStopped
	}
	ask := func(first float32) float32 {
		response, err := r.Registry.Infer(t.Context(), core.Request{Model: "m", Inputs: servetest.Row(first)})
		if err != nil {
			t.Error(err)
			return 0
		}
		defer response.Free()
		return math.Float32frombits(binary.LittleEndian.Uint32(response.Outputs[0].Data))
	}
	for i := range 8 {
		wg.Go(func() {
			for end := time.Now().Add(20 * time.Second); stopped() == "" && time.Now().Before(end); {
				ask(float32(1 + i))
			}
		})
	}
	wg.Wait()
	if why := stopped(); why == "" {
		t.Fatal("nobody noticed")
	}
	for i := range 8 {
		wg.Go(func() {
			for range 10 {
				first := float32(1 + i)
				if got, want := ask(first), first+first/4; got != want {
					t.Errorf("after it was noticed: got %g, want %g", got, want)
				}
			}
		})
	}
	wg.Wait()
}

// Answers that were computed together stay in no cache once one was found to differ.
func TestJoinedAnswersAreNotCached(t *testing.T) {
	r := servetest.New(t)
	starter := testEngine(r, "plain", "mean")
	r.Serve(core.Model{Name: "m", Instances: core.One(starter.Again(t)), Cache: core.Caching{Bytes: 1 << 20}})
	r.Wait("m")
	ask := func(first float32) float32 {
		response, err := r.Registry.Infer(t.Context(), core.Request{Model: "m", Inputs: servetest.Row(first)})
		if err != nil {
			t.Error(err)
			return 0
		}
		defer response.Free()
		return math.Float32frombits(binary.LittleEndian.Uint32(response.Outputs[0].Data))
	}
	var wg sync.WaitGroup
	var asked [8]int
	for i := range asked {
		wg.Go(func() {
			for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
				if s, err := r.Registry.Status("m"); err != nil || s.BatchingStopped != "" {
					return
				}
				asked[i]++
				ask(float32(10_000*i + asked[i]))
			}
			t.Error("nobody noticed")
		})
	}
	wg.Wait()
	for i, n := range asked {
		for j := range n {
			first := float32(10_000*i + j + 1)
			if got, want := ask(first), first+first/4; got != want {
				t.Fatalf("got %g, want %g", got, want)
			}
		}
	}
}

func TestRequestsWaitForOthers(t *testing.T) {
	r := servetest.New(t)
	r.Serve(core.Model{Name: "m", Batching: core.Batching{PreferredRows: []int{2, 4}, Delay: 10 * time.Second}})
	r.Wait("m")
	ask := func(n int) (shared []int) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		for i := range n {
			wg.Go(func() {
				got, err := r.Ask(t.Context(), core.Request{Model: "m"}, float32(i))
				if err != nil || got.Doubled != float32(2*i) {
					t.Errorf("got %+v, %v", got, err)
				}
				mu.Lock()
				shared = append(shared, got.Shared)
				mu.Unlock()
			})
		}
		wg.Wait()
		return shared
	}
	begin := time.Now()
	for _, n := range ask(4) { // the largest preferred size: it waits no longer
		if n != 4 {
			t.Errorf("a run of %d rows, want 4", n)
		}
	}
	if took := time.Since(begin); took > 8*time.Second {
		t.Errorf("they waited %v though all were there", took)
	}
	for _, b := range []core.Batching{{Delay: -1}, {Delay: time.Hour}, {PreferredRows: []int{0}}, {PreferredRows: []int{4, 2}}, {MostRows: -1}} {
		if err := r.Registry.Add(core.Model{Name: "n", Instances: core.One(&servetest.Exec{}), Batching: b}); err == nil {
			t.Errorf("%+v was accepted", b)
		}
	}
}

// The size of a batch is the largest preferred one that can be filled, and no batch
// has more rows than the model allows.
func TestBatchSizes(t *testing.T) {
	for _, test := range []struct {
		batching core.Batching
		sizes    []int
	}{
		{core.Batching{PreferredRows: []int{2, 4}}, []int{1, 2, 4}},
		{core.Batching{MostRows: 3}, []int{1, 2, 3}},
	} {
		r := servetest.New(t)
		r.Serve(core.Model{Name: "p", Batching: test.batching})
		r.Wait("p")
		var wg sync.WaitGroup
		var mu sync.Mutex
		sizes := map[int]int{}
		for i := range 40 {
			wg.Go(func() {
				first := float32(i)
				if i%8 == 0 {
					first = servetest.Sloth
				}
				got, err := r.Ask(t.Context(), core.Request{Model: "p"}, first)
				if err != nil || got.Doubled != 2*first {
					t.Errorf("got %+v, %v", got, err)
				}
				mu.Lock()
				sizes[got.Shared]++
				mu.Unlock()
			})
		}
		wg.Wait()
		for n := range sizes {
			if !slices.Contains(test.sizes, n) {
				t.Errorf("%+v: runs of %v rows, want %v", test.batching, sizes, test.sizes)
			}
		}
		if largest := slices.Max(test.sizes); sizes[largest] == 0 {
			t.Errorf("%+v: no run of %d rows: %v", test.batching, largest, sizes)
		}
	}
}

// Nobody waits for others whose company would save nothing, and what was learned
// is kept.
func TestDelayIsJustified(t *testing.T) {
	r := servetest.New(t)
	var kept []core.CurvePoint
	m := core.Model{Name: "m", Batching: core.Batching{Delay: time.Second}, KeepCurve: func(c []core.CurvePoint) { kept = c }}
	r.Serve(m)
	r.Wait("m")
	ask := func(n int) time.Duration {
		begin := time.Now()
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, servetest.Sloth); err != nil { // 50 ms a row
					t.Error(err)
				}
			})
		}
		wg.Wait()
		return time.Since(begin)
	}
	if took := ask(1); took < time.Second {
		t.Errorf("the first request took %v, want the whole delay: nothing is known", took)
	}
	ask(2)
	for range 3 {
		if took := ask(1); took > 700*time.Millisecond {
			t.Errorf("a request took %v, though waiting saves nothing", took)
		}
	}
	if s, err := r.Registry.Status("m"); err != nil || len(s.Curve) < 2 {
		t.Errorf("got %+v, %v", s.Curve, err)
	}
	if err := r.Registry.Remove("m"); err != nil || len(kept) < 2 {
		t.Fatalf("kept %+v, %v", kept, err)
	}
	m.Curve, m.Instances = kept, nil
	r.Serve(m)
	r.Wait("m")
	if took := ask(1); took > 700*time.Millisecond {
		t.Errorf("a request took %v, though what was learned before says that waiting saves nothing", took)
	}
}
