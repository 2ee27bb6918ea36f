package bounded

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestStall(t *testing.T) {
	why := errors.New("nothing came")
	ctx, stall := NewStall(t.Context(), 100*time.Millisecond, why)
	defer stall.Stop()
	for range 10 {
		time.Sleep(20 * time.Millisecond)
		stall.Moved()
	}
	if ctx.Err() != nil {
		t.Skip("needs a machine that sleeps for 20 ms in less than 100")
	}
	<-ctx.Done()
	if context.Cause(ctx) != why {
		t.Errorf("it ended for %v", context.Cause(ctx))
	}
	ctx, stall = NewStall(t.Context(), time.Hour, why)
	stall.Stop()
	if ctx.Err() == nil || context.Cause(ctx) == why {
		t.Errorf("stopped: %v, %v", ctx.Err(), context.Cause(ctx))
	}
}
