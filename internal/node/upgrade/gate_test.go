package upgrade

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// The deadline of a gate falls into a round: what failed is told by the round before.
func TestRoundCutOffByTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rounds atomic.Int32
		checks := []Check{
			{Name: "storage", Run: func(context.Context) error { return nil }},
			{Name: "ready", Run: func(ctx context.Context) error {
				if rounds.Add(1) == 3 {
					<-ctx.Done()
				}
				return errors.New("503 Service Unavailable")
			}},
		}
		err := pass(t.Context(), checks, 2500*time.Millisecond, func(string) {})
		if err == nil || err.Error() != "not passed within 2.5s: ready: 503 Service Unavailable" || rounds.Load() != 3 {
			t.Errorf("after %d rounds: got %v", rounds.Load(), err)
		}
		hangs := Check{Name: "hangs", Run: func(context.Context) error { time.Sleep(time.Hour); return nil }}
		err = pass(t.Context(), []Check{hangs}, time.Second, func(string) {})
		if err == nil || err.Error() != "not passed within 1s: hangs: no answer in time" {
			t.Errorf("one that hangs: got %v", err)
		}
		time.Sleep(time.Hour) // until it has ended
	})
}
