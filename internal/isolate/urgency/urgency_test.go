package urgency

import (
	"testing"
	"time"
)

func TestNearerDeadlinesNeverRankLower(t *testing.T) {
	last := highest + 1
	for d := time.Microsecond; d < 10*time.Second; d += d/10 + 1 {
		got := level(d)
		if got > last || got < lowest || got > highest {
			t.Fatalf("level(%v): got %d after %d", d, got, last)
		}
		last = got
	}
	if got := level(0); got != lowest {
		t.Errorf("no deadline: got %d, want %d", got, lowest)
	}
}

func TestDeadlinesThatDifferByHalfAreToldApart(t *testing.T) {
	for d := nearest; d < 30*time.Millisecond; d += d / 8 {
		if level(d) == level(d+d/2) {
			t.Errorf("%v and %v share level %d", d, d+d/2, level(d))
		}
	}
}
