package bounded

import (
	"context"
	"time"
)

// Attempts is how often in a row what gets no further is tried.
const Attempts = 4

// Retry calls try until it returns no error. After errors that are passing it pauses and
// calls it again, until Attempts in a row got no further: a download goes on where
// its connection was cut.
func Retry(ctx context.Context, passing func(error) bool, try func() (further bool, err error)) error {
	for failed := 0; ; {
		further, err := try()
		if err == nil {
			return nil
		}
		if further {
			failed = 0
		}
		if failed++; !passing(err) || failed == Attempts {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(failed) * time.Second):
		}
	}
}
