package node

import (
	"errors"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/bench/classes"
	"oscine.dev/oscine/internal/isolate"
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
