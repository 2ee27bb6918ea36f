package sim

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
)

// maxArrivals bounds the length of a replay.
const maxArrivals = 5_000_000

// arrivals returns the order in which pods arrive for a seed, tuned to the
// given multiple of the cluster's GPU capacity: shuffled, then pods drawn again
// from the list are appended while the demand and the next pod's GPU fit, or
// random ones removed. The generator is Go's math/rand (version 1), one draw
// discarded, as in the published experiment.
func arrivals(pods []Pod, capacity int64, tune float64, seed int64) ([]Pod, *rand.Rand, error) {
	r := rand.New(rand.NewSource(seed))
	r.Int()
	named := slices.Clone(pods)
	slices.SortFunc(named, func(a, b Pod) int { return strings.Compare(a.Name, b.Name) })
	order := slices.Clone(named)
	r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	var demand int64
	for _, p := range order {
		demand += gpuDemand(p)
	}
	target := tune * float64(capacity)
	if demand == 0 || target <= 0 || float64(demand) == target {
		return order, r, nil
	}
	if float64(demand) > target {
		for float64(demand) > target {
			i := r.Intn(len(order))
			demand -= gpuDemand(order[i])
			order = slices.Delete(order, i, i+1)
		}
		return order, r, nil
	}
	for {
		p := named[r.Intn(len(named))]
		// One GPU of the pod is counted here, all of them below: a quirk of the
		// published experiment, kept to be comparable.
		if float64(demand+p.Shape.MilliGPU) > target {
			return order, r, nil
		}
		demand += gpuDemand(p)
		if order = append(order, p); len(order) > maxArrivals {
			return nil, nil, fmt.Errorf("more than %d pods would have to arrive for %g times the GPU capacity; use larger pods or a smaller cluster", maxArrivals, tune)
		}
	}
}

func gpuDemand(p Pod) int64 { return int64(p.Shape.GPUs) * p.Shape.MilliGPU }
