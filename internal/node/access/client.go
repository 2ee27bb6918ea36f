package access

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/printable"
)

// client is who holds a token, with what is left of the rate. It
// implements core.Guard.
type client struct {
	token Token
	now   func() time.Time

	mu      sync.Mutex
	left    float64   // requests that may come at once
	filled  time.Time // when left was last counted
	running int
	removed bool
	used    Usage
}

func newClient(t Token) *client { return &client{token: t, now: time.Now, left: burst(&t)} }

func burst(t *Token) float64 {
	if t.Burst > 0 {
		return float64(t.Burst)
	}
	return math.Max(1, t.Rate)
}

// late is a refusal that says when to ask again.
type late struct {
	error
	after time.Duration
}

// RetryAfter is when the client may ask again.
func (l *late) RetryAfter() time.Duration { return l.after }

func (l *late) Unwrap() error { return l.error }

// valid refuses a token that is no longer one.
func (c *client) valid(now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.validLocked(now)
}

func (c *client) validLocked(now time.Time) error {
	switch {
	case c.removed:
		return fmt.Errorf("%w: token %s was removed", errdefs.ErrUnauthenticated, c.token.Name)
	case !c.token.Expires.IsZero() && !now.Before(c.token.Expires):
		return fmt.Errorf("%w: token %s expired at %s", errdefs.ErrUnauthenticated, c.token.Name, c.token.Expires.Format(time.RFC3339))
	}
	return nil
}

// Allows implements core.Guard.
func (c *client) Allows(model string) bool { return c.token.Allows(model) }

// Admit implements core.Guard.
func (c *client) Admit(_ context.Context, model string) (done func(), err error) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.admit(now, model); err != nil {
		c.used.Refused++
		return nil, err
	}
	c.running++
	c.used.Requests++
	c.used.Last = now
	return c.ended, nil
}

// admit takes one request out of what the client has left. The caller holds mu.
func (c *client) admit(now time.Time, model string) error {
	t := &c.token
	if err := c.validLocked(now); err != nil {
		return err
	}
	if !t.Allows(model) {
		return fmt.Errorf("%w: token %s is not for model %q", errdefs.ErrPermissionDenied, t.Name, model)
	}
	if t.Concurrent > 0 && c.running >= t.Concurrent {
		return &late{fmt.Errorf("%w: token %s already has %d requests in progress, its limit", errdefs.ErrResourceExhausted, t.Name, c.running), time.Second}
	}
	if t.Rate == 0 {
		return nil
	}
	if !c.filled.IsZero() {
		c.left = math.Min(burst(t), c.left+t.Rate*now.Sub(c.filled).Seconds())
	}
	c.filled = now
	if c.left < 1 {
		after := time.Duration((1 - c.left) / t.Rate * float64(time.Second))
		number, unit := printable.Rate(t.Rate)
		per := map[string]string{"s": "second", "m": "minute", "h": "hour"}[unit]
		return &late{fmt.Errorf("%w: token %s has reached its limit of %s requests per %s", errdefs.ErrResourceExhausted, t.Name, number, per), after}
	}
	c.left--
	return nil
}

func (c *client) ended() {
	c.mu.Lock()
	c.running--
	c.mu.Unlock()
}

func (c *client) remove() {
	c.mu.Lock()
	c.removed = true
	c.mu.Unlock()
}

func (c *client) usage() Usage {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used
}
