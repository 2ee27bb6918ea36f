package trial_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/servetest"
	"oscine.dev/oscine/internal/serve/trial"
)

// The test program is the worker too.
func TestMain(m *testing.M) { servetest.Main(m) }

// try runs a trial of a model of the engine for tests.
func try(t *testing.T, ctx context.Context, kind string) (*trial.Result, error) {
	t.Helper()
	starter := servetest.Engine(t, kind)
	starter.Threads = 1
	w, err := starter.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return trial.Run(ctx, w, 50*time.Millisecond)
}

func TestRun(t *testing.T) {
	r, err := try(t, t.Context(), "add")
	if err != nil {
		t.Fatal(err)
	}
	if r.Metadata.Engine != "test 1" || r.Load <= 0 || r.Latency[0] <= 0 || r.Latency[1] <= 0 || r.Problem != "" {
		t.Errorf("got %+v, want both batches run", r)
	}
	r, err = try(t, t.Context(), "sleep")
	if err != nil || r.Latency[0] < time.Millisecond || r.Latency[1] != 0 {
		t.Errorf("without an open first dimension: got %+v, %v", r, err)
	}
	r, err = try(t, t.Context(), "short")
	if err != nil || !strings.Contains(r.Problem, "0 outputs, 1 are wanted") {
		t.Errorf("one that cannot be run: got %+v, %v", r, err)
	}
	if _, err = try(t, t.Context(), "once"); !errors.As(err, new(*channel.ModelError)) || !strings.Contains(err.Error(), "not a second time") {
		t.Errorf("one that is refused: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = try(t, ctx, "add"); err == nil {
		t.Error("a trial that was cancelled gave a result")
	}
}
