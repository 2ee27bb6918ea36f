package machine

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestPressUntilOff has a machine that notices its button only after a while.
func TestPressUntilOff(t *testing.T) {
	for name, c := range map[string]struct {
		boots   time.Duration // until it notices
		refuses bool          // QEMU does not answer
		off     bool
		took    time.Duration
	}{
		"up":       {0, false, true, 0},
		"booting":  {25 * time.Second, false, true, 26 * time.Second},
		"hanging":  {time.Hour, false, false, time.Minute},
		"no QEMU":  {time.Hour, true, false, pressPause},
		"just off": {-1, true, true, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			began := time.Now()
			noticed := c.boots < 0
			press := func() error {
				if c.refuses {
					return errors.New("refused")
				}
				noticed = noticed || time.Since(began) >= c.boots
				return nil
			}
			wait := func(ctx context.Context) error {
				if noticed {
					return nil
				}
				<-ctx.Done()
				return ctx.Err()
			}
			if off := pressUntilOff(ctx, press, wait); off != c.off || time.Since(began) != c.took {
				t.Errorf("%s: off %t after %s, want %t after %s", name, off, time.Since(began), c.off, c.took)
			}
		})
	}
}
