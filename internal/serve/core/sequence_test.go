package core_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/ensemble"
	"oscine.dev/oscine/internal/serve/servetest"
)

// totals serves the model m, which adds up the numbers of a sequence.
func totals(t *testing.T, s core.Sequencing) *servetest.Rig {
	t.Helper()
	return stateful(servetest.New(t), "total", s)
}

// stateful serves the model m of a kind with state, and plain without.
func stateful(r *servetest.Rig, kind string, s core.Sequencing) *servetest.Rig {
	r.Helper()
	starter := testEngine(r, "plain", kind)
	if s.States == nil {
		s.States = []core.KeptState{{Input: "before", Output: "after"}}
	}
	r.Serve(core.Model{Name: "m", Instances: core.One(starter.Again(r.TB)), Sequencing: s})
	return r
}

// next asks for the total of a sequence after one more number.
func next(r *servetest.Rig, client string, s core.Sequence, n int32) (int, error) {
	response, err := r.Registry.Infer(core.WithGuard(r.Context(), visitor(client)), core.Request{Model: "m", Sequence: s, Inputs: number(n)})
	if err != nil {
		return 0, err
	}
	defer response.Free()
	if len(response.Outputs) != 1 || response.Outputs[0].Name != "total" {
		return 0, fmt.Errorf("outputs %+v", response.Outputs)
	}
	return int(binary.LittleEndian.Uint32(response.Outputs[0].Data)), nil
}

func TestSequences(t *testing.T) {
	r := totals(t, core.Sequencing{})
	r.Wait("m")
	first, on, last := core.Sequence{ID: "1", Start: true}, core.Sequence{ID: "1"}, core.Sequence{ID: "1", End: true}
	other := core.Sequence{ID: `"1"`, Start: true}
	for i, step := range []struct {
		client   string
		sequence core.Sequence
		n        int32
		want     int
		err      string
	}{
		{"a", on, 1, 0, "needs sequence_start"},
		{"a", core.Sequence{}, 1, 0, "needs a sequence_id"},
		{"a", core.Sequence{Start: true}, 1, 0, "needs a sequence_id"},
		{"a", first, 1, 1, ""},
		{"a", on, 2, 3, ""},
		{"b", on, 5, 0, "needs sequence_start"}, // it is another client's
		{"b", first, 5, 5, ""},
		{"a", other, 7, 7, ""},
		{"a", on, 666, 0, "cannot be added"}, // the state stays as it was
		{"a", on, 4, 7, ""},
		{"b", first, 2, 2, ""}, // begins again
		{"b", last, 2, 4, ""},
		{"b", on, 2, 0, "needs sequence_start"},
		{"b", core.Sequence{ID: "2", Start: true, End: true}, 2, 2, ""},
		{"b", core.Sequence{ID: "2"}, 2, 0, "needs sequence_start"},
		{"b", core.Sequence{ID: "3", Start: true}, 666, 0, "cannot be added"}, // begins none
		{"b", core.Sequence{ID: "3"}, 2, 0, "needs sequence_start"},
		{"a", on, 1, 8, ""},
		{"a", first, 666, 0, "cannot be added"}, // the sequence that it would have reset goes on
		{"a", on, 0, 8, ""},
	} {
		got, err := next(r, step.client, step.sequence, step.n)
		if got != step.want || (err == nil) != (step.err == "") || err != nil && (!strings.Contains(err.Error(), step.err) || !errdefs.IsInvalidArgument(err)) {
			t.Errorf("step %d: got %d, %v; want %d, %s", i, got, err, step.want, step.err)
		}
	}
	// The worker's end takes no state along.
	if err := r.Registry.Break(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if got, err := next(r, "a", on, 1); got != 9 || err != nil {
		t.Errorf("after the worker's end: got %d, %v", got, err)
	}
	s, err := r.Registry.Status("m")
	if err != nil || len(s.Inputs) != 1 || len(s.Outputs) != 1 || s.Sequences != 2 {
		t.Errorf("got %+v, %v", s, err)
	}
	for _, q := range []core.Request{
		{Model: "m", Sequence: on, Inputs: append(number(1), core.Input{Name: "before", Type: number(1)[0].Type, Shape: number(1)[0].Shape, Data: core.Bytes{9, 9, 9, 9}})},
		{Model: "m", Sequence: on, Inputs: number(1), Outputs: []string{"after"}},
		{Model: "plain", Sequence: on, Inputs: number(1)},
	} {
		if _, err := r.Registry.Infer(t.Context(), q); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%+v: got %v", q, err)
		}
		if err := r.Registry.Accepts(t.Context(), &q); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%+v is accepted: %v", q, err)
		}
	}
	if err := r.Registry.Accepts(t.Context(), &core.Request{Model: "m", Sequence: on, Inputs: number(1)}); err != nil {
		t.Error(err)
	}
}

// Requests of one sequence that come at once are computed one after the other.
func TestSequenceIsOrdered(t *testing.T) {
	r := totals(t, core.Sequencing{})
	r.Wait("m")
	if _, err := next(r, "a", core.Sequence{ID: "1", Start: true}, 0); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[int]bool{}
	for range 50 {
		wg.Go(func() {
			got, err := next(r, "a", core.Sequence{ID: "1"}, 1)
			mu.Lock()
			defer mu.Unlock()
			if seen[got] || err != nil {
				t.Errorf("%d twice, %v", got, err)
			}
			seen[got] = true
		})
	}
	wg.Wait()
	if got, err := next(r, "a", core.Sequence{ID: "1"}, 0); got != 50 || err != nil {
		t.Errorf("got %d, %v", got, err)
	}
}

func TestSequencesAreBounded(t *testing.T) {
	r := totals(t, core.Sequencing{Most: 2, Idle: 300 * time.Millisecond})
	r.Wait("m")
	for i, want := range []error{nil, nil, core.ErrOverloaded} {
		if _, err := next(r, "a", core.Sequence{ID: fmt.Sprint(i), Start: true}, 1); !errors.Is(err, want) {
			t.Errorf("sequence %d: got %v, want %v", i, err, want)
		}
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if s, _ := r.Registry.Status("m"); s.Sequences == 0 {
			break
		}
	}
	if _, err := next(r, "a", core.Sequence{ID: "0"}, 1); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("a sequence that was idle: got %v", err)
	}
	if _, err := next(r, "a", core.Sequence{ID: "2", Start: true}, 1); err != nil {
		t.Error(err)
	}
}

// A client that has left begins no sequence.
func TestSequenceOfAClientThatLeft(t *testing.T) {
	r := totals(t, core.Sequencing{})
	r.Wait("m")
	ctx, leave := context.WithCancel(t.Context())
	leave()
	for i := range 20 {
		response, _ := r.Registry.Infer(ctx, core.Request{Model: "m", Sequence: core.Sequence{ID: fmt.Sprint(i), Start: true, End: true}, Inputs: number(1)})
		response.Free()
	}
	if s, err := r.Registry.Status("m"); err != nil || s.Sequences != 0 {
		t.Errorf("%d sequences, %v", s.Sequences, err)
	}
}

// A client that has all sequences of a model gives some of them up for others, down
// to its share.
func TestClientsShareSequences(t *testing.T) {
	r := totals(t, core.Sequencing{Most: 4})
	r.Wait("m")
	for i, step := range []struct {
		client, id string
		start      bool
		want       error
	}{
		{"a", "1", true, nil}, {"a", "2", true, nil}, {"a", "3", true, nil}, {"a", "4", true, nil},
		{"a", "1", false, nil},               // 2 is idle longest
		{"a", "5", true, core.ErrOverloaded}, // it has all
		{"b", "1", true, nil},                // in the place of a's 2
		{"a", "2", false, core.ErrInvalid},   // which has ended
		{"b", "2", true, nil},                // in the place of a's 3
		{"b", "3", true, core.ErrOverloaded}, // it has its half
		{"a", "2", true, core.ErrOverloaded}, // and so has a
		{"c", "1", true, nil},                // one of a or b, who have most
		{"c", "2", true, core.ErrOverloaded}, // it has its third
		{"a", "4", false, core.ErrInvalid},   // was idle longest
		{"a", "1", false, nil},
	} {
		if _, err := next(r, step.client, core.Sequence{ID: step.id, Start: step.start}, 1); !errors.Is(err, step.want) {
			t.Errorf("step %d: got %v, want %v", i, err, step.want)
		}
	}
}

// The states of all models have one bound, which counts the memory that they take.
func TestStatesAreBounded(t *testing.T) {
	r := servetest.New(t)
	r.Registry.SetStates(1000)
	stateful(r, "hoard", core.Sequencing{})
	r.Wait("m")
	a, b := core.Sequence{ID: "1", Start: true}, core.Sequence{ID: "2", Start: true}
	for i, step := range []struct {
		sequence     core.Sequence
		bytes        int32
		want         error
		free, memory int64
	}{
		{a, 600, nil, 400, 600},
		{b, 600, core.ErrOverloaded, 400, 600},
		{a, 10, nil, 990, 10}, // no memory of a larger state is kept
		{b, 600, nil, 390, 610},
		{core.Sequence{ID: "2", End: true}, 1, nil, 990, 10},
	} {
		if _, err := next(r, "a", step.sequence, step.bytes); !errors.Is(err, step.want) || err != nil && !strings.Contains(err.Error(), "take 1000 bytes at most") {
			t.Errorf("step %d: got %v, want %v", i, err, step.want)
		}
		if free, memory := r.Registry.States("m"); free != step.free || memory != step.memory {
			t.Errorf("step %d: %d bytes are free and %d in use, want %d and %d", i, free, memory, step.free, step.memory)
		}
	}
	if err := r.Registry.Remove("m"); err != nil {
		t.Fatal(err)
	}
	if free, _ := r.Registry.States("m"); free != 1000 {
		t.Errorf("a model that is gone has %d bytes", 1000-free)
	}
}

func TestStatesAreChecked(t *testing.T) {
	for _, test := range []struct {
		state core.KeptState
		want  string
	}{
		{core.KeptState{Input: "none", Output: "after"}, `input "none" of the state is not known (the model's inputs are n, before)`},
		{core.KeptState{Input: "before", Output: "none"}, `output "none" of the state is not known`},
		{core.KeptState{Input: "before", Output: "after", Shape: []int64{1, 2}}, "wrong shape"},
	} {
		r := totals(t, core.Sequencing{States: []core.KeptState{test.state}})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := r.Registry.WaitReady(ctx, "m"); err == nil || !strings.Contains(err.Error(), "spec.sequenceBatching: ") || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want %s", err, test.want)
		}
	}
}

// A sequence stays with the version that began it.
func TestSequenceStaysWithItsVersion(t *testing.T) {
	r := totals(t, core.Sequencing{})
	half := 50
	starter := testEngine(r, "spare", "total")
	r.Serve(core.Model{Name: "n", ServedAs: "m", Version: "2", Instances: core.One(starter.Again(t)),
		Sequencing: core.Sequencing{States: []core.KeptState{{Input: "before", Output: "after"}}}, Routing: core.Routing{Traffic: &half}})
	r.Wait("m")
	r.Wait("n")
	for i := range 20 {
		id := fmt.Sprint(i)
		for step := range 5 {
			if got, err := next(r, "a", core.Sequence{ID: id, Start: step == 0}, 1); got != step+1 || err != nil {
				t.Fatalf("sequence %s, step %d: got %d, %v", id, step, got, err)
			}
		}
	}
	one, _ := r.Registry.Status("m")
	two, _ := r.Registry.Status("n")
	if one.Sequences == 0 || two.Sequences == 0 {
		t.Errorf("%d and %d sequences, want some with each version", one.Sequences, two.Sequences)
	}
}

// Each step of an ensemble has states of its own, beside those of requests that ask
// its model directly.
func TestStepsHaveTheirOwnStates(t *testing.T) {
	r := totals(t, core.Sequencing{})
	r.Wait("m")
	if err := r.Registry.Add(core.Model{Name: "twice", Ensemble: &core.Ensemble{Steps: []ensemble.Step{
		{Model: "m", Inputs: tensors{"n": "n"}, Outputs: tensors{"total": "mid"}},
		{Model: "m", Inputs: tensors{"n": "mid"}, Outputs: tensors{"total": "out"}},
	}}}); err != nil {
		t.Fatal(err)
	}
	ready(r, "twice")
	if got, err := next(r, "a", core.Sequence{ID: "1", Start: true}, 100); got != 100 || err != nil {
		t.Fatalf("got %d, %v", got, err)
	}
	for i, want := range []uint32{1, 3, 6} { // sums of sums
		response, err := r.Registry.Infer(core.WithGuard(t.Context(), visitor("a")), core.Request{Model: "twice", Sequence: core.Sequence{ID: "1", Start: i == 0}, Inputs: number(1)})
		if err != nil {
			t.Fatal(err)
		}
		if got := binary.LittleEndian.Uint32(response.Outputs[0].Data); got != want {
			t.Errorf("request %d: got %d, want %d", i, got, want)
		}
		response.Free()
	}
	if _, err := next(r, "a", core.Sequence{ID: `"none"`}, 1); err == nil || !strings.Contains(err.Error(), `m has no sequence "none" of this client`) {
		t.Errorf("a sequence that there is not: got %v", err)
	}
	if got, err := next(r, "a", core.Sequence{ID: "1"}, 1); got != 101 || err != nil {
		t.Errorf("asked directly: got %d, %v", got, err)
	}
}
