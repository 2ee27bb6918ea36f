package bounded

import (
	"errors"
	"testing"
	"testing/synctest"
)

func TestRetry(t *testing.T) {
	cut, broken := errors.New("cut"), errors.New("broken")
	passing := func(err error) bool { return err == cut }
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			further string // of each call, which ends well, or as said, at the last
			ends    error
			want    error
			calls   int
		}{
			{"y", nil, nil, 1},
			{"yyyyyy", nil, nil, 6},
			{"nnnnn", nil, cut, Attempts},
			{"nnynny", nil, nil, 6},
			{"yy", broken, broken, 2},
		} {
			calls := 0
			err := Retry(t.Context(), passing, func() (bool, error) {
				further := c.further[calls] == 'y'
				if calls++; calls < len(c.further) {
					return further, cut
				}
				return further, c.ends
			})
			if err != c.want || calls != c.calls {
				t.Errorf("%s: got %v after %d calls, want %v after %d", c.further, err, calls, c.want, c.calls)
			}
		}
	})
}
