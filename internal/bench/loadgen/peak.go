package loadgen

import (
	"context"
	"fmt"
	"time"
)

// Peak searches the highest rate at which the server scenario keeps its latency:
// it doubles s.QPS until a run does not, and halves the interval between. Try
// runs the settings at a rate. It returns the verdict of the best run, with its
// rate as the peak, and an error where not even the first rate is kept.
func Peak(ctx context.Context, s Settings, try func(context.Context, Settings) (*Verdict, error), progress func(string)) (*Verdict, error) {
	run := func(qps float64) (*Verdict, error) {
		s.QPS = qps
		v, err := try(ctx, s)
		if err == nil && ctx.Err() != nil {
			err = ctx.Err()
		}
		if err == nil {
			word := "kept"
			if !v.PerformanceMet {
				word = "missed"
			}
			progress(fmt.Sprintf("%.4g/s: latency %s, p%g is %v", qps, word, 100*s.Percentile, v.Latency.Round(10*time.Microsecond)))
		}
		return v, err
	}
	low := s.QPS
	best, err := run(low)
	if err != nil {
		return nil, err
	}
	if !best.PerformanceMet {
		return best, fmt.Errorf("the search begins at %g/s, where the latency of %v is missed already: begin at a lower rate", low, s.Latency)
	}
	high := 2 * low
	for ; ; high *= 2 {
		v, err := run(high)
		if err != nil {
			return nil, err
		}
		if !v.PerformanceMet {
			break
		}
		low, best = high, v
	}
	for high-low >= peakPrecision(low) {
		middle := (low + high) / 2
		v, err := run(middle)
		if err != nil {
			return nil, err
		}
		if v.PerformanceMet {
			low, best = middle, v
		} else {
			high = middle
		}
	}
	best.Peak = low
	return best, nil
}

// peakPrecision ends the search: 1 % of the rate, and at least a tenth.
func peakPrecision(qps float64) float64 { return max(qps/100, .1) }
