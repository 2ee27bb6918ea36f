package reconcile

import (
	"testing"
	"time"

	"oscine.dev/oscine/internal/object"
)

// steps notes what a machine begins.
type steps struct{ begun []step }

func (s *steps) start(next step, _ object.Object) { s.begun = append(s.begun, next) }
func (s *steps) cancel()                          {}
func (s *steps) observed(object.Observed, error)  {}

// What can take over from itself is not stopped before.
func TestReplacersAreNotStopped(t *testing.T) {
	for replaces, want := range map[bool][]step{true: {bringUp, attend, bringUp}, false: {bringUp, attend, stop}} {
		s, now := &steps{}, time.Now()
		m := newMachine(s, productLimits(), newThing("a", "one", ""))
		m.replaces = replaces
		m.tick(now)
		m.ended(nil, now)
		m.tick(now)
		m.set(newThing("a", "two", ""))
		m.tick(now) // cancels
		m.ended(nil, now)
		m.tick(now)
		if len(s.begun) != 3 || s.begun[2] != want[2] {
			t.Errorf("replaces %v: got the steps %v, want %v", replaces, s.begun, want)
		}
		if !replaces {
			continue
		}
		// Where its place is gone it is stopped all the same.
		m.ended(nil, now)
		m.markLost(errDisk)
		m.tick(now)
		if last := s.begun[len(s.begun)-1]; last != stop {
			t.Errorf("without its place: step %v", last)
		}
	}
}
