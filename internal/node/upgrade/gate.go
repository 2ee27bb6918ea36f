package upgrade

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Check is one thing that a version on trial must pass.
type Check struct {
	Name string
	Run  func(context.Context) error
}

const (
	// gatePause is between two rounds of the checks.
	gatePause = time.Second
	// checkTimeout bounds one check: one that hangs has failed in this round.
	checkTimeout = 15 * time.Second
)

// pass runs the checks, all at once and over and over, until all pass in one round,
// and returns what failed in the last round that the deadline did not cut off: one
// that it did says nothing of the checks.
func pass(ctx context.Context, checks []Check, deadline time.Duration, say func(string)) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	var failed []string
	for {
		now := round(ctx, checks)
		if len(now) == 0 {
			return nil
		}
		if failed == nil || ctx.Err() == nil {
			failed = now
		}
		say("waits for " + strings.Join(failed, "; "))
		select {
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return ctx.Err()
			}
			return fmt.Errorf("not passed within %s: %s", deadline, strings.Join(failed, "; "))
		case <-time.After(gatePause):
		}
	}
}

// round runs every check once and returns what failed, in the order of the checks.
func round(ctx context.Context, checks []Check) (failed []string) {
	results := make([]error, len(checks))
	var all sync.WaitGroup
	for i, c := range checks {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, checkTimeout)
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- guarded(ctx, c) }()
			select {
			case results[i] = <-done:
			case <-ctx.Done():
				results[i] = errors.New("no answer in time")
			}
		})
	}
	all.Wait()
	for i, err := range results {
		if err != nil {
			failed = append(failed, fmt.Sprintf("%s: %v", checks[i].Name, err))
		}
	}
	return failed
}

// guarded runs a check; one that panics has failed.
func guarded(ctx context.Context, c Check) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the check panicked: %v", r)
		}
	}()
	return c.Run(ctx)
}
