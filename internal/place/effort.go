package place

import (
	"context"
	"fmt"
)

// Bounds on the steps of the searches behind one decision, and behind a plan
// that tries many. An ordinary decision takes thousands; the bounds are some
// tenths of a second, and seconds, of one CPU.
const (
	maxEffort     = 50_000_000
	maxPlanEffort = 10 * maxEffort
	effortLook    = 1 << 16 // steps between looks at the context
)

// effort is what a decision may still spend on searching. A search that runs
// out of it, or whose context ends, stops and keeps the best it has found.
type effort struct {
	ctx  context.Context
	left int64
	look int64 // steps until the next look at ctx
}

func newEffort(ctx context.Context, steps int64) *effort {
	return &effort{ctx: ctx, left: steps}
}

// spend takes steps and reports whether the search may go on.
func (e *effort) spend(steps int) bool {
	e.left -= int64(steps)
	if e.look -= int64(steps); e.look <= 0 {
		e.look = effortLook
		if e.ctx.Err() != nil {
			e.left = -1
		}
	}
	return e.left >= 0
}

func (e *effort) spent() bool { return e.left < 0 }

// err reports a context that has ended; running out of steps is no error.
func (e *effort) err(what string) error {
	if e.ctx.Err() != nil {
		return fmt.Errorf("placing %q was interrupted: %w", what, context.Cause(e.ctx))
	}
	return nil
}

// cutOff explains a refusal that a longer search might have avoided.
func (e *effort) cutOff() []Failure {
	if !e.spent() {
		return nil
	}
	return []Failure{{
		Constraint: "search", Problem: "there are too many ways to try them all; none of those tried will do",
		Remedy: "ask for less, or for particular devices",
	}}
}
