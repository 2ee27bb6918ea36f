package core

import (
	"testing"
	"time"
)

func TestHistogram(t *testing.T) {
	var h histogram
	for i := range 1000 {
		h.observe(time.Duration(i+1) * time.Microsecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Microsecond, 0.99: 990 * time.Microsecond} {
		if got := h.quantile(q); got < want || got > want*9/8 {
			t.Errorf("quantile %g: got %v, want %v to an eighth more", q, got, want)
		}
	}
	if got := h.quantile(1); got != time.Millisecond {
		t.Errorf("quantile 1: got %v, want the longest, 1ms", got)
	}
	for d := time.Duration(1); d > 0 && d < 1<<62; d *= 3 {
		if b := bucket(d); upper(b) < d || b > 0 && d > 8 && upper(b-1) >= d {
			t.Errorf("%v lies in bucket %d up to %v", d, b, upper(b))
		}
	}
}
