package core_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/servetest"
)

// greedy starts workers that end as those do that reach their memory limit.
type greedy struct {
	core.Starter
	started int
}

type greedyWorker struct{ core.Worker }

func (g *greedy) Start(ctx context.Context) (core.Worker, error) {
	w, err := g.Starter.Start(ctx)
	g.started++
	return greedyWorker{w}, err
}

func (w greedyWorker) Wait() error { return fmt.Errorf("%w: %w", core.ErrMemory, w.Worker.Wait()) }

// A request that needs more memory than there is takes one worker along, not two,
// and is told so.
func TestOneRequestTakesOneWorkerAlong(t *testing.T) {
	r := servetest.New(t)
	g := &greedy{Starter: servetest.Worker(t.TempDir(), "single")}
	r.Serve(core.Model{Name: "m", Instances: core.One(g)})
	r.Wait("m")
	_, err := r.Ask(t.Context(), core.Request{Model: "m"}, servetest.Poison)
	if !errors.Is(err, core.ErrMemory) || errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "not tried again") {
		t.Errorf("got %v", err)
	}
	if got, err := r.Ask(t.Context(), core.Request{Model: "m"}, 2); err != nil || got.Doubled != 4 {
		t.Errorf("the next: %+v, %v", got, err)
	}
	if s, err := r.Registry.Status("m"); err != nil || s.Restarts != 1 || g.started != 2 {
		t.Errorf("%d workers were started, %+v, %v", g.started, s, err)
	}
}

// Who is refused is told when it is worth asking again.
func TestRetryAfterFollowsTheQueue(t *testing.T) {
	r := servetest.New(t)
	r.Serve(core.Model{Name: "m", Instances: core.One(servetest.Worker(t.TempDir(), "single")), Timeout: 20 * time.Second})
	r.Wait("m")
	for range 20 { // runs of 50 ms are the usual
		if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, servetest.Sloth); err != nil {
			t.Fatal(err)
		}
	}
	err := r.Registry.Overloaded("m", 40)
	var later interface{ RetryAfter() time.Duration }
	if !errors.Is(err, core.ErrOverloaded) || !errors.As(err, &later) {
		t.Fatalf("got %v", err)
	}
	if after := later.RetryAfter(); after < 2*time.Second || after > 8*time.Second || after%time.Second != 0 {
		t.Errorf("after %v; 40 requests of 50 ms wait", after)
	}
}
