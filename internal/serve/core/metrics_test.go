package core

import (
	"testing"
	"time"
)

func TestDurationsAreCounted(t *testing.T) {
	var h durations
	for i := range 1000 {
		h.observe(time.Duration(i+1) * time.Microsecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Microsecond, 0.99: 990 * time.Microsecond} {
		if got := h.quantile(h.counts(), q); got < want || got > want*9/8 {
			t.Errorf("quantile %g: got %v, want %v to an eighth more", q, got, want)
		}
	}
	if got := h.quantile(h.counts(), 1); got != time.Millisecond {
		t.Errorf("quantile 1: got %v, want the longest, 1ms", got)
	}
	h.observe(1000 * time.Hour)
	if got := h.quantile(h.counts(), 1); got < time.Hour {
		t.Errorf("beyond all buckets: got %v", got)
	}
}
