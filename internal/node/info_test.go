package node

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"oscine.dev/oscine/internal/doctor"
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
