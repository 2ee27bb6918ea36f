package servetest

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/engine/enginetest"
	"oscine.dev/oscine/internal/tensor"
)

// Rig is a registry whose workers are the test's own program.
type Rig struct {
	testing.TB
	Registry *core.Registry
}

// New returns a Rig that stops its models when the test ends.
func New(t testing.TB) *Rig {
	t.Helper()
	r := &Rig{TB: t, Registry: core.NewRegistry()}
	t.Cleanup(func() {
		for _, s := range r.Registry.List(context.Background()) {
			if err := r.Registry.Remove(s.Name); err != nil {
				t.Error(err)
			}
		}
	})
	return r
}

// Worker returns a Starter of the test's own program. Its kind is "doubler", of
// which requests may be joined, "single", of which they may not, or "refuse".
func Worker(dir, kind string) *Exec {
	// The folder may be gone with its test: then the worker says so.
	_ = os.WriteFile(filepath.Join(dir, "model"), []byte("a model\n"), 0o600)
	return &Exec{Command: []string{os.Args[0]}, Model: filepath.Join(dir, "model"), Dir: filepath.Join(dir, "s"), Log: os.Stderr, Env: []string{workerVariable + "=" + kind}}
}

// Engine returns a Starter of the test's own program, with the engine for tests and
// a model of that kind (package enginetest).
func Engine(t testing.TB, kind string) *Exec {
	t.Helper()
	starter := Worker(t.TempDir(), testEngine)
	if err := os.WriteFile(starter.Model, []byte(enginetest.Magic+kind+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return starter
}

// Serve adds a model; an instance without a Starter gets a doubler, and a model
// without an instance gets one.
func (r *Rig) Serve(m core.Model) {
	r.Helper()
	if len(m.Instances) == 0 {
		m.Instances = core.One(nil)
	}
	for i := range m.Instances {
		if m.Instances[i].Starter == nil {
			m.Instances[i].Starter = Worker(r.TempDir(), "doubler")
		}
	}
	m.Platform = "doubler_test"
	if err := r.Registry.Add(m); err != nil {
		r.Fatal(err)
	}
}

// Ready serves a doubler and waits until it answers.
func (r *Rig) Ready(name string) {
	r.Helper()
	r.Serve(core.Model{Name: name, Timeout: 2 * time.Second})
	r.Wait(name)
}

// Wait waits until a model answers.
func (r *Rig) Wait(name string) {
	r.Helper()
	if err := r.Registry.WaitReady(r.Context(), name); err != nil {
		r.Fatal(err)
	}
}

// Row is the input of one row, [first, 0, 0, 0].
func Row(first float32) []core.Input {
	data := make(core.Bytes, 16)
	binary.LittleEndian.PutUint32(data, math.Float32bits(first))
	return []core.Input{{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{1, 4}, Data: data}}
}

// Answer is what a doubler said of one row.
type Answer struct {
	Doubled float32
	Shared  int // how many requests were in the run
}

// Ask infers one row; q says all but the inputs.
func (r *Rig) Ask(ctx context.Context, q core.Request, first float32) (Answer, error) {
	q.Inputs = Row(first)
	response, err := r.Registry.Infer(ctx, q)
	if err != nil {
		return Answer{}, err
	}
	defer response.Free()
	if len(response.Outputs) != 2 {
		return Answer{}, fmt.Errorf("%d outputs", len(response.Outputs))
	}
	y, n := response.Outputs[0].Data, response.Outputs[1].Data
	return Answer{math.Float32frombits(binary.LittleEndian.Uint32(y)), int(binary.LittleEndian.Uint32(n))}, nil
}

// Gate serves a worker of a kind as the model m, which computes the first
// request until the function is called.
func (r *Rig) Gate(kind string) (open func()) {
	r.Helper()
	starter := Worker(r.TempDir(), kind)
	r.Serve(core.Model{Name: "m", Instances: core.One(starter)})
	r.Wait("m")
	done := make(chan bool)
	go func() {
		defer close(done)
		if _, err := r.Ask(context.WithoutCancel(r.Context()), core.Request{Model: "m"}, Gated); err != nil {
			r.Errorf("the first request: %v", err)
		}
	}()
	return func() {
		if err := os.WriteFile(Marker(starter.Model), nil, 0o600); err != nil {
			r.Error(err)
		}
		<-done
	}
}
