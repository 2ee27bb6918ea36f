package model

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/trial"
	"oscine.dev/oscine/internal/tensor"
)

// twoEngines has the bench hold two packs that read every model.
func twoEngines(b *bench) {
	for _, name := range []string{"first", "second"} {
		b.packs = append(b.packs, pack.Info{Manifest: pack.Manifest{Name: name, Version: "1", Engines: []string{name}}, Digest: "sha256:" + name})
	}
}

// after is what an engine gives that answers after a time.
func after(d time.Duration) *trial.Result {
	spec := []tensor.Spec{{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{1}}}
	return &trial.Result{Metadata: channel.Metadata{Engine: "e 1", Inputs: spec, Outputs: spec}, Latency: [2]time.Duration{d}, Problem: "it wants a picture"}
}

// One engine refuses the model: the next one that reads it is taken, the person is
// told, and the next time nothing is tried.
func TestNextEngineIsTaken(t *testing.T) {
	b := newBench(t)
	twoEngines(b)
	b.try = func(name string) (*trial.Result, error) {
		if name == "first" {
			return nil, &channel.ModelError{Text: "it would answer zeros"}
		}
		return after(time.Millisecond), nil
	}
	m := b.upload(t, "weights")
	for range 2 {
		if err := b.c.Up(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		st := b.status()
		if b.served == nil || len(st.Candidates) != 2 || st.Candidates[0].Chosen || !st.Candidates[1].Chosen ||
			st.Candidates[0].Reason != "refused: it would answer zeros" || st.Candidates[1].Batch1.Std() != time.Millisecond {
			t.Errorf("got %+v", st.Candidates)
		}
		if _, err := b.served.Instances[0].Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if root := b.Running()["model-digits"].RootFS; root != "/packs/second" {
			t.Errorf("it runs from %s", root)
		}
	}
	if !slices.Equal(b.tries, []string{"first", "second"}) {
		t.Errorf("tried %v, want each once", b.tries)
	}
	if len(b.events) != 1 || !strings.Contains(b.events[0], "Chosen: second 1 runs the model") || !strings.Contains(b.events[0], "first 1: refused: it would answer zeros") {
		t.Errorf("events: %q", b.events)
	}
	// Another pack is another choice.
	b.packs[1].Digest = "sha256:newer"
	if err := b.c.Up(t.Context(), m); err != nil || len(b.tries) != 4 {
		t.Errorf("after another pack: tried %v, %v", b.tries, err)
	}
}

func TestEngineOfTheManifest(t *testing.T) {
	b := newBench(t)
	twoEngines(b)
	m := b.upload(t, "weights")
	m.Spec.Engine = "first"
	if err := b.c.Up(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if st := b.status(); len(b.tries) != 0 || len(st.Candidates) != 1 || st.Candidates[0].Reason != "spec.engine names it" {
		t.Errorf("tried %v, got %+v", b.tries, st.Candidates)
	}
}

// Where all refuse, the first is left to say why; what only failed is tried again.
func TestNoEngineCanRun(t *testing.T) {
	b := newBench(t)
	twoEngines(b)
	b.try = func(string) (*trial.Result, error) { return nil, errors.New("the worker ended") }
	m := b.upload(t, "weights")
	for range 2 {
		if err := b.c.Up(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	if len(b.tries) != 4 || !strings.HasPrefix(b.events[0], "Chosen: no engine can run the model: first 1: failed: the worker ended;") {
		t.Errorf("tried %v, events %q", b.tries, b.events)
	}
}

func TestChoicesAreBounded(t *testing.T) {
	c, err := OpenChoices(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t)
	m := b.upload(t, "weights")
	table := b.c.(*controller).only(m, []pack.Info{{}})
	for i := range mostChoices + 2 {
		if err := c.put(strings.Repeat("k", i+1)[max(0, i-100):], table); err != nil {
			t.Fatal(err)
		}
	}
	if c.get("k", 2) != nil {
		t.Error("a choice between two packs is one between one")
	}
}

// What batches cost is kept for the same model, pack and hardware.
func TestCostsAreKept(t *testing.T) {
	b := newBench(t)
	first, second := b.upload(t, "one"), b.upload(t, "two")
	if err := b.c.Up(t.Context(), first); err != nil || b.served.Costs != nil {
		t.Fatalf("%v, costs %+v", err, b.served.Costs)
	}
	want := []Cost{{1, 2 * time.Millisecond}, {3.5, 4 * time.Millisecond}}
	b.served.KeepCosts(want)
	for _, test := range []struct {
		m    *object.Model
		want []Cost
	}{{second, nil}, {first, want}} {
		if err := b.c.Stop(t.Context(), test.m); err != nil {
			t.Fatal(err)
		}
		if err := b.c.Up(t.Context(), test.m); err != nil || !slices.Equal(b.served.Costs, test.want) {
			t.Errorf("%v, costs %+v, want %+v", err, b.served.Costs, test.want)
		}
	}
}
