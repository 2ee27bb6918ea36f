package loadgen

import (
	"math"
	"sort"
)

// confidence is how sure early stopping has to be.
const confidence = .99

// likely is the probability that at most slow of n queries miss a latency which
// the given share of queries keeps. Slow is less than the average.
func likely(n, slow int, share float64) float64 {
	a, _ := math.Lgamma(float64(n) + 1)
	b, _ := math.Lgamma(float64(slow) + 1)
	c, _ := math.Lgamma(float64(n-slow) + 1)
	term := math.Exp(a - b - c + float64(slow)*math.Log1p(-share) + float64(n-slow)*math.Log(share))
	sum := 0.0
	for k := slow; k >= 0 && term > 0; k-- {
		sum += term
		// From k of n to k-1 of n.
		next := term * float64(k) / float64(n-k+1) * share / (1 - share)
		if next < sum*1e-17 {
			break
		}
		term = next
	}
	return math.Min(sum, 1)
}

// Proven reports whether n queries, slow of which missed a latency, show with a
// confidence of 99 % that at least the given share keeps it: were it fewer, so
// few misses would be unlikely. As many as such a share has on average prove nothing.
func Proven(n, slow int, share float64) bool {
	return float64(slow) < float64(n)*(1-share) && likely(n, slow, share) < 1-confidence
}

// QueriesNeeded is how many queries prove the share, where slow of them miss the
// latency.
func QueriesNeeded(slow int, share float64) int {
	most := 64
	for !Proven(slow+most, slow, share) {
		most *= 2
	}
	return slow + sort.Search(most, func(more int) bool { return Proven(slow+more, slow, share) })
}

// Slow is how many of n queries may miss a latency that the share is then proven
// to keep; false where n is too few even without one.
func Slow(n int, share float64) (int, bool) {
	slow := sort.Search(n+1, func(t int) bool { return !Proven(n, t, share) }) - 1
	return slow, slow >= 0
}
