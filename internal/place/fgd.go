package place

import (
	"math"
	"slices"
)

// FGD is fragmentation gradient descent (USENIX ATC'23): a node is the better
// the less its fragmentation grows, rated from 0 to 100 through a sigmoid and
// truncated, so that small differences are ties.
type FGD struct {
	frag *Fragmentation
	// steps[k] is the least descent that is rated k + 1 or more.
	steps [100]int64
}

// NewFGD returns the scorer for a typical demand.
func NewFGD(frag *Fragmentation) *FGD {
	s := &FGD{frag: frag}
	for k := range s.steps {
		s.steps[k] = s.leastFor(k + 1)
	}
	return s
}

// rated is the published formula.
func (s *FGD) rated(descent int64) int {
	gpus := float64(descent) / float64(max(s.frag.Total, 1)) / 1000
	return int(100 / (1 + math.Exp(-gpus)))
}

// leastFor inverts the formula by bisection over the integers.
func (s *FGD) leastFor(k int) int64 {
	lo, hi := -64_000*max(s.frag.Total, 1), 64_000*max(s.frag.Total, 1)
	for lo < hi {
		mid := lo + (hi-lo)/2
		if s.rated(mid) >= k {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

// Score implements Scorer.
func (s *FGD) Score(n *Load, a *Ask) (int32, int) {
	after, gpu := s.frag.After(n, a)
	descent := s.frag.Node(n) - after
	k, exact := slices.BinarySearch(s.steps[:], descent)
	if exact {
		k++
	}
	return int32(k), gpu
}
