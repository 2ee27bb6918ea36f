package bounded

import (
	"context"
	"time"
)

// Stall ends what waits for others when nothing has come for a while.
type Stall struct {
	after  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

// NewStall returns a context that is cancelled with the cause why when Moved was not called
// for so long. The caller must call Stop.
func NewStall(ctx context.Context, after time.Duration, why error) (context.Context, *Stall) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &Stall{after: after, timer: time.AfterFunc(after, func() { cancel(why) }), cancel: cancel}
}

// Moved notes that something came.
func (s *Stall) Moved() { s.timer.Reset(s.after) }

// Stop gives up the context.
func (s *Stall) Stop() {
	s.timer.Stop()
	s.cancel(nil)
}
