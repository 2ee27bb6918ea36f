package core_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/servetest"
)

// visitor is the guard of a client that may ask everything.
type visitor string

func (v visitor) Client() string { return string(v) }

func (visitor) Allows(string) bool { return true }

func (v visitor) Admit(context.Context, string) (func(), error) { return func() {}, nil }

func cacheOf(r *servetest.Rig) core.CacheFigures {
	r.Helper()
	s, err := r.Registry.Status("m")
	if err != nil {
		r.Fatal(err)
	}
	return s.Cache
}

func TestEqualRequestsAreAnsweredFromTheCache(t *testing.T) {
	r := servetest.New(t)
	worker := servetest.Worker(t.TempDir(), "doubler")
	m := core.Model{Name: "m", Instances: core.One(worker), Cache: core.Caching{Bytes: 1 << 20}}
	r.Serve(m)
	r.Wait("m")
	marker := servetest.Marker(worker.Model)
	if err := os.WriteFile(marker, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ask := func(q core.Request, first float32) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		q.Model = "m"
		if got, err := r.Ask(ctx, q, first); err != nil || got.Doubled != 2*first {
			t.Fatalf("got %+v, %v", got, err)
		}
	}
	ask(core.Request{}, servetest.Gated)
	if err := os.Remove(marker); err != nil {
		t.Fatal(err)
	}
	ask(core.Request{}, servetest.Gated) // the worker would not answer any more
	ask(core.Request{Outputs: []string{"y", "batch"}, Priority: 3}, 7)
	ask(core.Request{}, 7) // other outputs are asked for, though they are the same
	if got := cacheOf(r); !got.On || got.Hits != 1 || got.Misses != 3 || got.Bytes == 0 {
		t.Errorf("got %+v", got)
	}
	// Another load of the model has another cache, and counts on.
	if err := r.Registry.Replace(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if got := cacheOf(r); got.Bytes != 0 || got.Hits != 1 {
		t.Errorf("after a replacement: got %+v", got)
	}
	ask(core.Request{}, 7)
	if got := cacheOf(r); got.Hits != 1 || got.Misses != 4 {
		t.Errorf("after a replacement: got %+v", got)
	}
}

func TestCacheIsBounded(t *testing.T) {
	r := servetest.New(t)
	r.Serve(core.Model{Name: "m", Cache: core.Caching{Bytes: 4 << 10}})
	r.Wait("m")
	for i := range 40 {
		for _, first := range []float32{1, float32(100 + i)} { // the first stays, being used
			if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, first); err != nil {
				t.Fatal(err)
			}
		}
		if got := cacheOf(r); got.Bytes > 4<<10 {
			t.Fatalf("%d bytes are kept", got.Bytes)
		}
	}
	if got := cacheOf(r); got.Hits != 39 || got.Misses != 41 {
		t.Errorf("got %+v", got)
	}
	if err := r.Registry.Add(core.Model{Name: "n", Instances: core.One(&servetest.Exec{}), Cache: core.Caching{Bytes: core.MaxCache + 1}}); err == nil {
		t.Error("a larger cache than there may be was accepted")
	}
}

func TestCachePerClient(t *testing.T) {
	for _, perClient := range []bool{false, true} {
		r := servetest.New(t)
		r.Serve(core.Model{Name: "m", Cache: core.Caching{Bytes: 1 << 20, PerClient: perClient}})
		r.Wait("m")
		for _, client := range []visitor{"a", "b", "a", "b"} {
			if _, err := r.Ask(core.WithGuard(t.Context(), client), core.Request{Model: "m"}, 3); err != nil {
				t.Fatal(err)
			}
		}
		want := int64(3)
		if perClient {
			want = 2
		}
		if got := cacheOf(r); got.Hits != want {
			t.Errorf("perClient %v: %d hits, want %d", perClient, got.Hits, want)
		}
	}
}

func TestStreamsAreNotCached(t *testing.T) {
	r := servetest.New(t)
	starter := testEngine(r, "n", "count")
	again := *starter
	again.Dir = filepath.Join(t.TempDir(), "s")
	r.Serve(core.Model{Name: "m", Instances: core.One(&again), Cache: core.Caching{Bytes: 1 << 20}})
	if err := r.Registry.WaitReady(t.Context(), "m"); err == nil || !strings.Contains(err.Error(), "leave out spec.responseCache") {
		t.Errorf("got %v", err)
	}
}
