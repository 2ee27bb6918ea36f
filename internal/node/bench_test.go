package node

import (
	"errors"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/bench/classes"
	"oscine.dev/oscine/internal/isolate"
	"oscine.dev/oscine/internal/place"
)

func TestBenchLatencyRefuses(t *testing.T) {
	n := &Node{isolator: &isolate.Isolator{}}
	n.benching.Lock()
	for _, tc := range []struct {
		o    classes.Options
		want error
		text string
	}{
		{classes.Options{Classes: []string{"fast"}, Duration: time.Second}, ErrInvalid, `there is no class "fast"`},
		{classes.Options{}, ErrInvalid, "too short"},
		{classes.Options{Threads: 1 << 20, Duration: time.Second}, ErrInvalid, "give 1 to 4096"},
		{classes.Options{Duration: 11 * time.Minute}, ErrInvalid, "33m0s takes longer than 30m0s"},
		{classes.Options{Duration: 1<<63 - 1, Period: 1 << 50}, ErrInvalid, "takes longer than"},
		{classes.Options{Schedulers: []string{classes.SchedExt}, Duration: time.Second}, ErrConflict, "this node's scheduler is stock"},
		{classes.Options{Duration: time.Second}, ErrConflict, "someone measures this machine already"},
	} {
		report, err := n.BenchLatency(t.Context(), tc.o)
		if report != nil || !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%+v: got %v, want %q", tc.o, err, tc.text)
		}
	}
}

// A measurement takes a CPU that nobody has, and nobody else is given it
// meanwhile.
func TestBenchBorrowsAFreeCPU(t *testing.T) {
	p, s := fourCPUs(t)
	req := place.Request{Name: "bench", Class: place.Realtime, MilliCPU: 1000, Exclusive: true, WholeCore: true}
	first, err := p.lend(req)
	if err != nil || len(first.CPUs) != 1 {
		t.Fatalf("lent %v, %v", first.CPUs, err)
	}
	three := exclusive(t, s, "three", "realtime", "3")
	if _, _, err := p.place(s, three); !isUnsatisfied(err) {
		t.Errorf("three of three CPUs, one of them lent: got %v, want Unsatisfied", err)
	}
	p.takeBack("bench")
	if _, _, err := p.place(s, three); err != nil {
		t.Errorf("after it was given back: %v", err)
	}
	if _, err := p.lend(req); !isUnsatisfied(err) {
		t.Errorf("without a free CPU: got %v, want Unsatisfied", err)
	}
}
