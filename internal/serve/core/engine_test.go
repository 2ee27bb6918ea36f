package core_test

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/engine/enginetest"
	"oscine.dev/oscine/internal/serve/servetest"
	"oscine.dev/oscine/internal/tensor"
)

// testEngine serves a model of the engine for tests.
func testEngine(r *servetest.Rig, name, kind string) *servetest.Exec {
	r.Helper()
	starter := servetest.Engine(r, kind)
	r.Serve(core.Model{Name: name, Instances: core.One(starter)})
	r.Wait(name)
	return starter
}

func number(n int32) []core.Input {
	return []core.Input{{Name: "n", Type: tensor.Int32, Shape: tensor.Shape{1}, Data: core.Bytes(binary.LittleEndian.AppendUint32(nil, uint32(n)))}}
}

func tokens(response *core.Response) (text string) {
	_ = tensor.Strings(response.Outputs[0].Data, 1, func(s []byte) error {
		text = string(s)
		return nil
	})
	return text
}

func TestStream(t *testing.T) {
	r := servetest.New(t)
	testEngine(r, "m", "count")
	var got []string
	q := core.Request{Model: "m", Inputs: number(4), Part: func(part *core.Response) error {
		got = append(got, tokens(part))
		return nil
	}}
	rest, err := r.Registry.Infer(t.Context(), q)
	if err != nil || len(rest.Outputs) != 0 || strings.Join(got, " ") != "0 1 2 3" {
		t.Errorf("got %q, then %+v, %v", got, rest, err)
	}
	// What it counts for later ones is what its parts took, not its whole slot.
	if grows := r.Registry.Grows("m"); grows <= 0 || grows > 1<<20 {
		t.Errorf("the next request is expected to need %d bytes", grows)
	}
	// As a whole, where nobody takes parts.
	q.Part = nil
	if whole, err := r.Registry.Infer(t.Context(), q); err != nil || tokens(&whole) != "0123" {
		t.Errorf("got %+v, %v", whole, err)
	}
	// A client that goes away, or whose reader fails, stops the engine.
	stopped := errors.New("no more")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for what, part := range map[string]func(*core.Response) error{
		"a reader that fails": func(*core.Response) error { return stopped },
		"a client that leaves": func(*core.Response) error {
			cancel()
			return nil
		},
	} {
		q := core.Request{Model: "m", Inputs: number(1_000_000), Part: part}
		begin := time.Now()
		if _, err := r.Registry.Infer(ctx, q); !errors.Is(err, stopped) && !errors.Is(err, core.ErrCanceled) || time.Since(begin) > 5*time.Second {
			t.Errorf("%s: got %v after %v", what, err, time.Since(begin))
		}
	}
	if s, err := r.Registry.Status("m"); err != nil || s.Restarts != 0 {
		t.Errorf("got %+v, %v, want the first worker", s, err)
	}
}

// A worker that computes is stopped when the one client it computes for leaves,
// and so is one of several that run at once.
func TestClientThatLeavesStopsTheEngine(t *testing.T) {
	r := servetest.New(t)
	testEngine(r, "m", "sleep")
	for range 2 { // the second time it is known that runs take long
		if _, err := r.Registry.Infer(t.Context(), core.Request{Model: "m", Inputs: number(100)}); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	var wg sync.WaitGroup
	for range 8 { // four run, four wait
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if _, err := r.Registry.Infer(ctx, core.Request{Model: "m", Inputs: number(60_000)}); !errors.Is(err, core.ErrCanceled) && !errors.Is(err, core.ErrExpired) {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	if _, err := r.Registry.Infer(t.Context(), core.Request{Model: "m", Inputs: number(1)}); err != nil || time.Since(begin) > 20*time.Second {
		t.Errorf("after clients that left: %v, %v later", err, time.Since(begin))
	}
}

func TestRunsAtOnce(t *testing.T) {
	r := servetest.New(t)
	testEngine(r, "m", "sleep")
	begin := time.Now()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := r.Registry.Infer(t.Context(), core.Request{Model: "m", Inputs: number(1000)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(begin); took > 3500*time.Millisecond {
		t.Errorf("four runs of a second took %v, want them at once", took)
	}
}

func TestByteStrings(t *testing.T) {
	r := servetest.New(t)
	testEngine(r, "m", "upper")
	text := core.Bytes(tensor.AppendString(nil, []byte("one")))
	q := core.Request{Model: "m", Inputs: []core.Input{{Name: "text", Type: tensor.Bytes, Shape: tensor.Shape{1}, Data: text}}}
	got, err := r.Registry.Infer(t.Context(), q)
	if want := tensor.AppendString(tensor.AppendString(nil, []byte("ONE")), []byte("ONE")); err != nil || string(got.Outputs[0].Data) != string(want) {
		t.Errorf("got %+v, %v", got, err)
	}
	q.Inputs[0].Shape = tensor.Shape{2}
	if _, err := r.Registry.Infer(t.Context(), q); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("fewer strings than the shape says: got %v", err)
	}
	// Eight bytes could be two empty strings, which a worker would look for.
	q.Inputs[0].Data = core.Bytes(tensor.AppendString(nil, []byte("four")))
	if _, err := r.Registry.Infer(t.Context(), q); !errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), `input "text"`) {
		t.Errorf("one string for two: got %v", err)
	}
}

// A second life that says other things of the model is refused: requests that
// wait were checked against the first.
func TestSecondLifeWithFewerOutputs(t *testing.T) {
	r := servetest.New(t)
	starter := testEngine(r, "m", "sleep")
	if err := os.WriteFile(starter.Model, []byte(enginetest.Magic+"add\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.Registry.Break(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	_, err := r.Registry.Infer(t.Context(), core.Request{Model: "m", Inputs: number(1)})
	if !errors.Is(err, core.ErrNotReady) {
		t.Errorf("got %v, want ErrNotReady", err)
	}
	if err := r.Registry.WaitReady(t.Context(), "m"); err == nil || !strings.Contains(err.Error(), "says other things of the same model") {
		t.Errorf("got %v", err)
	}
}

// A client that takes a little now and then holds no slot for long, also when the
// engine has long been done.
func TestSlowReaderIsGivenUp(t *testing.T) {
	r := servetest.New(t)
	testEngine(r, "m", "count")
	if err := r.Registry.SetReadWithin("m", 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	parts := 0
	_, err := r.Registry.Infer(t.Context(), core.Request{Model: "m", Inputs: number(100), Part: func(*core.Response) error {
		parts++
		time.Sleep(20 * time.Millisecond)
		return nil
	}})
	if !errors.Is(err, core.ErrCanceled) || parts > 50 {
		t.Errorf("got %v after %d parts", err, parts)
	}
}
