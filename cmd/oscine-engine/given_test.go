package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/engine"
	"oscine.dev/oscine/internal/serve/engine/modeltest"
	"oscine.dev/oscine/internal/serve/servetest"
	"oscine.dev/oscine/internal/serve/trial"
	"oscine.dev/oscine/internal/tensor"
)

// TestGiven runs a real model on inputs that a test gives: each is answered once, in
// order, the same input by the same answer, and what the model refuses is an error.
func TestGiven(t *testing.T) {
	dir, err := pack.Libraries(t.Context(), "onnxruntime", runtime.GOARCH, false, os.Stderr)
	if err != nil {
		t.Skip(err)
	}
	starter := &servetest.Exec{
		Command: []string{buildWorker(t), "onnxruntime", "--library", filepath.Join(dir, engine.All()["onnxruntime"].Library)},
		Model:   modeltest.Path(t, modeltest.Direction), Threads: 1, Dir: filepath.Join(t.TempDir(), "s"), Log: os.Stderr,
	}
	run := func(inputs ...trial.Input) ([][]trial.Output, *trial.Result, error) {
		w, err := starter.Start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var answers [][]trial.Output
		r, err := trial.RunGiven(t.Context(), w, trial.Given{
			Limit: 50 * time.Millisecond,
			Inputs: func(*channel.Metadata) ([][]trial.Input, error) {
				var all [][]trial.Input
				for _, in := range inputs {
					all = append(all, []trial.Input{in})
				}
				return all, nil
			},
			Answered: func(i, n int, outputs []trial.Output) {
				if i != len(answers) || n != len(inputs) {
					t.Errorf("answer %d of %d, want %d of %d", i, n, len(answers), len(inputs))
				}
				answers = append(answers, outputs)
			},
		})
		return answers, r, err
	}
	line := func(fill byte) trial.Input {
		shape := tensor.Shape{1, 3, 48, 192}
		return trial.Input{Shape: shape, Data: bytes.Repeat([]byte{0, 0, fill, 0x3e}, 3*48*192)}
	}
	answers, r, err := run(line(0), line(0x70), line(0))
	if err != nil {
		t.Fatal(err)
	}
	if len(answers) != 3 || r.Latency[0] <= 0 || r.Load <= 0 {
		t.Fatalf("%d answers, result %+v", len(answers), r)
	}
	if !bytes.Equal(answers[0][0].Data, answers[2][0].Data) || bytes.Equal(answers[0][0].Data, answers[1][0].Data) {
		t.Errorf("equal inputs are answered by %x and %x, another by %x", answers[0][0].Data, answers[2][0].Data, answers[1][0].Data)
	}
	if _, _, err := run(trial.Input{Shape: tensor.Shape{1, 2, 48, 192}, Data: make([]byte, 4*2*48*192)}); !errors.As(err, new(*channel.ModelError)) {
		t.Errorf("a wrong shape: got %v, want the model's refusal", err)
	}
}
