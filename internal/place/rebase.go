package place

import (
	"context"
	"errors"
)

// Lost is a placement that a changed machine cannot hold any more.
type Lost struct {
	Placement Placement
	Why       error
}

// Rebase carries what is given out over to a machine that has changed: a CPU
// went offline, a device was lost, memory came. It returns the new State and
// the placements that no longer fit, which it does not hold; the caller places
// them again, or reports the refusal. s is left as it was.
func (s *State) Rebase(m *Machine) (*State, []Lost, error) {
	next, err := NewState(m)
	if err != nil {
		return nil, nil, err
	}
	next.linkDemand = s.linkDemand
	var lost []Lost
	for _, p := range s.Placements() {
		if err := next.Adopt(p); err != nil {
			lost = append(lost, Lost{Placement: p, Why: err})
		}
	}
	return next, lost, nil
}

// Replace places a lost piece of work again. The refusal says why it ran before
// and cannot now.
func (s *State) Replace(ctx context.Context, l Lost) (Placement, error) {
	p, err := s.Place(ctx, l.Placement.Request)
	var refusal *Unsatisfied
	if errors.As(err, &refusal) {
		refusal.Failures = append([]Failure{{
			Constraint: "machine", Problem: "the machine has changed: " + l.Why.Error(),
			Remedy: "bring back what is gone, or satisfy the constraints below",
		}}, refusal.Failures...)
	}
	return p, err
}
