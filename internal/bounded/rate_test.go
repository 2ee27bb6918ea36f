package bounded

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// No second has more bytes than the rate allows, however many ask for them.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const perSecond = 1 << 20
		r := NewRate(perSecond)
		if n := r.Most(10 << 20); n != perSecond/10 {
			t.Errorf("one step may have %d bytes", n)
		}
		began := time.Now()
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range 5 {
					if err := r.Wait(t.Context(), perSecond/10); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if took := time.Since(began).Round(time.Millisecond); took != 2*time.Second {
			t.Errorf("two seconds' bytes took %v", took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.Wait(ctx, perSecond); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: got %v", err)
		}
		began = time.Now()
		if n := NewRate(0).Most(10 << 20); n != 10<<20 || NewRate(0).Wait(t.Context(), n) != nil || time.Since(began) != 0 {
			t.Errorf("without a limit one step may have %d bytes, after %v", n, time.Since(began))
		}
	})
}
