package isolate

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// play lets the guard look every five milliseconds at stalls of the given
// share of the time, and returns the levels it went through.
func play(g *guardState, start time.Time, total *time.Duration, share float64, looks int) (levels []level, end time.Time) {
	for range looks {
		start = start.Add(guardTick)
		*total += time.Duration(share * float64(guardTick))
		if to, changed := g.look(start, *total, "memory"); changed {
			levels = append(levels, to)
		}
	}
	return levels, start
}

func TestGuardHoldsBatchBackWithinMilliseconds(t *testing.T) {
	var g guardState
	var total time.Duration
	now := time.Unix(1000, 0)
	if got, _ := play(&g, now, &total, 0.05, 100); len(got) != 0 {
		t.Errorf("a stall within the budget: got %v", got)
	}
	g = guardState{}
	got, at := play(&g, now, &total, 0.5, 3)
	if diff := cmp.Diff([]level{throttled, frozen}, got); diff != "" {
		t.Errorf("after %v of stalls (-want +got):\n%s", at.Sub(now), diff)
	}
	got, _ = play(&g, at, &total, 0, 40)
	if diff := cmp.Diff([]level{throttled, free}, got); diff != "" {
		t.Errorf("afterwards (-want +got):\n%s", diff)
	}
}

// Freezing batch cannot help interactive work that asks for more than it has:
// batch goes on, and is left alone for a while.
func TestGuardLetsGoWhenBatchIsNotTheCause(t *testing.T) {
	var g guardState
	var total time.Duration
	now := time.Unix(1000, 0)
	got, at := play(&g, now, &total, 0.9, int(longestFreeze/guardTick)+5)
	if diff := cmp.Diff([]level{throttled, frozen, free}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	got, at = play(&g, at, &total, 0.9, int((holdOff-time.Second)/guardTick))
	if len(got) != 0 {
		t.Errorf("while left alone: got %v", got)
	}
	if got, _ = play(&g, at, &total, 0.9, 300); len(got) == 0 {
		t.Error("batch is left alone forever")
	}
}

func TestGuardNeverStarvesBatch(t *testing.T) {
	var g guardState
	var total time.Duration
	now := time.Unix(1000, 0)
	held := time.Duration(0)
	for i := range 20_000 {
		now = now.Add(guardTick)
		if i%20 < 3 { // a stall every tenth of a second
			total += guardTick / 2
		}
		g.look(now, total, "io")
		if g.level == frozen {
			held += guardTick
		}
	}
	if all := 20_000 * guardTick; held > all*9/10 {
		t.Errorf("batch was frozen %v of %v", held, all)
	}
}
