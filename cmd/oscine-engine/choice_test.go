package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/serve/engine"
	"oscine.dev/oscine/internal/serve/engine/modeltest"
	"oscine.dev/oscine/internal/serve/servetest"
	"oscine.dev/oscine/internal/serve/trial"
)

// TestChoice tries real engines in real workers on real models, as a node does.
func TestChoice(t *testing.T) {
	program := buildWorker(t)
	for model, test := range map[string]struct {
		engines []string
		chosen  string // "" for either
		reasons []string
	}{
		modeltest.Hand:             {[]string{"litert", "openvino"}, "", nil},
		modeltest.Direction:        {[]string{"onnxruntime", "openvino"}, "", nil},
		modeltest.BasicPitchTFLite: {[]string{"litert", "openvino"}, "openvino", []string{"refused: the engine", "the only one that can be taken"}},
	} {
		t.Run(model, func(t *testing.T) {
			var tried []trial.Candidate
			for _, engine := range test.engines {
				c := trial.Candidate{Name: engine}
				c.Result, c.Err = tryEngine(t, program, engine, model)
				tried = append(tried, c)
			}
			chosen, verdicts := trial.Choose(tried)
			for i, v := range verdicts {
				if r := tried[i].Result; r != nil {
					t.Logf("%s: load %v, 1 row %v, 8 rows %v, difference %.2g: %s", test.engines[i], r.Load, r.Latency[0], r.Latency[1], v.Difference, v.Reason)
				}
				if test.reasons != nil && !strings.Contains(v.Reason, test.reasons[i]) {
					t.Errorf("%s: %s, want %s", test.engines[i], v.Reason, test.reasons[i])
				}
				if test.reasons == nil && !(v.Difference <= trial.Spread) {
					t.Errorf("%s differs by %g: %s", test.engines[i], v.Difference, v.Reason)
				}
			}
			if chosen < 0 || test.chosen != "" && test.engines[chosen] != test.chosen {
				t.Errorf("chose %d of %v, want %s", chosen, test.engines, test.chosen)
			}
		})
	}
}

// tryEngine tries an engine in a worker of its own.
func tryEngine(t *testing.T, program, name, model string) (*trial.Result, error) {
	t.Helper()
	dir, err := pack.Libraries(t.Context(), name, runtime.GOARCH, false, os.Stderr)
	if err != nil {
		t.Skip(err)
	}
	starter := &servetest.Exec{
		Command: []string{program, name, "--library", filepath.Join(dir, engine.All()[name].Library)},
		Model:   modeltest.Path(t, model), Threads: 1, Dir: filepath.Join(t.TempDir(), "s"), Log: os.Stderr,
	}
	w, err := starter.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return trial.Run(t.Context(), w, time.Second)
}
