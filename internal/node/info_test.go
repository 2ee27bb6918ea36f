package node

import (
	"bytes"
	"context"
	"errors"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"oscine.dev/oscine/internal/doctor"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/isolate"
	"oscine.dev/oscine/internal/object"
)

// TestProbesAreShared has a hundred callers ask at once, and one of them leave.
func TestProbesAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p probes
		var runs atomic.Int32
		finish := make(chan struct{})
		probe := func() []doctor.Capability {
			runs.Add(1)
			<-finish
			return []doctor.Capability{{Name: "kvm"}}
		}
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if got := p.run(t.Context(), probe); len(got) != 1 {
					t.Errorf("got %v", got)
				}
			})
		}
		gone, leave := context.WithCancel(t.Context())
		all.Go(func() {
			if got := p.run(gone, probe); got != nil {
				t.Errorf("a caller that left got %v", got)
			}
		})
		synctest.Wait()
		leave()
		synctest.Wait()
		close(finish)
		all.Wait()
		if n := runs.Load(); n != 1 {
			t.Errorf("the probes ran %d times, want once", n)
		}
	})
}

func TestWhatTheNodeTells(t *testing.T) {
	h := newHouse(t)
	if err := h.apply(t, "web", ""); err != nil {
		t.Fatal(err)
	}
	h.await(t, web(), object.Running)
	h.MarkReady()
	if info := h.Info(); info.Ready == 0 || info.Kernel == "" || info.Version != "test" || !slices.Contains(info.Missing, "quotas") || info.Certificate.Problem != "" || info.Certificate.NotAfter.IsZero() {
		t.Errorf("info %+v", info)
	}
	first := h.Info().Ready
	h.ready.Store(0) // another start of the daemon
	if h.MarkReady(); h.Info().Ready != first {
		t.Errorf("ready after %v, the first start after %v", h.Info().Ready, first)
	}
	h.notePromise(isolate.Event{ID: "workload-web", Reason: isolate.ReasonBroken, Message: "cpuset"})
	h.driverEvent(hardware.DriverEvent{Device: "nowhere", Kind: "ecc", Text: "two bits"})
	h.hugePagesMissing(object.Quantity{}, errors.New("too few"))
	reasons := map[string]bool{}
	if err := h.Events(t.Context(), EventQuery{Warnings: true}, func(e Event) error { reasons[e.Reason] = true; return nil }); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{isolate.ReasonBroken, string(hardware.MemoryError)} {
		if !reasons[want] {
			t.Errorf("events %v lack %s", reasons, want)
		}
	}
	answer := httptest.NewRecorder()
	h.Metrics().ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	if got := answer.Body.String(); !strings.Contains(got, `name="web"`) || !strings.Contains(got, "gpu0") {
		t.Errorf("metrics:\n%.2000s", got)
	}
	if raw, err := h.Hardware(t.Context()); err != nil || !bytes.Contains(raw, []byte("gpu0")) {
		t.Errorf("hardware: %v", err)
	}
	answer = httptest.NewRecorder()
	_, inference := h.Inference()
	inference.ServeHTTP(answer, httptest.NewRequest("GET", "/v2", nil))
	if answer.Code != 200 {
		t.Errorf("inference: %d", answer.Code)
	}
	h.repairNetwork(t.Context())
	h.refreshDrivers(t.Context())
	if h.classes().Batch.CPUWeight != 7 {
		t.Error("the limits of the Machine file are lost")
	}
}
