package bounded

import (
	"context"
	"sync"
	"time"
)

// Rate spreads bytes so that no second has more than it allows. It is safe for
// concurrent use.
type Rate struct {
	perSecond int64

	mu   sync.Mutex
	next time.Time // when the bytes so far are paid for
}

// NewRate allows so many bytes a second, 0 for any number.
func NewRate(perSecond int64) *Rate { return &Rate{perSecond: perSecond} }

// Most is how many of n bytes one step may have: a tenth of a second's.
func (r *Rate) Most(n int) int {
	if r.perSecond <= 0 {
		return n
	}
	return int(min(int64(n), max(r.perSecond/10, 1)))
}

// Wait returns once n more bytes are paid for, or with the cause of ctx.
func (r *Rate) Wait(ctx context.Context, n int) error {
	if r.perSecond <= 0 {
		return nil
	}
	r.mu.Lock()
	now := time.Now()
	if r.next.Before(now) {
		r.next = now
	}
	r.next = r.next.Add(time.Duration(int64(n) * int64(time.Second) / r.perSecond))
	pause := r.next.Sub(now)
	r.mu.Unlock()
	select {
	case <-time.After(pause):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
