package sim

import (
	"fmt"
	"math/rand"
	"slices"

	"oscine.dev/oscine/internal/place"
)

// Policies are the names that --policy takes, in the order of the paper and
// ours last.
func Policies() []string {
	return []string{"random", "dotprod", "clustering", "packing", "bestfit", "fgd", "oscine"}
}

// publishedName is a policy's name in the published tables.
func publishedName(policy string) string {
	switch policy {
	case "random":
		return "Random"
	case "dotprod":
		return "DotProd"
	case "clustering":
		return "GpuClustering"
	case "packing":
		return "GpuPacking"
	case "bestfit":
		return "BestFit"
	case "fgd":
		return "FGD"
	}
	return policy
}

// CheckPolicy returns an error that lists the policies where the name is none.
func CheckPolicy(name string) error {
	if slices.Contains(Policies(), name) {
		return nil
	}
	return fmt.Errorf("no policy %q; there are %v", name, Policies())
}

// Largest nodes of the openb cluster, by which scores are normalised.
const (
	maxSpecCPU = 128_000 // thousandths
	maxSpecGPU = 8_000
)

// tightest is the GPU that fits a shared request with the least to spare, the
// first of equals.
func tightest(n *place.Load, a *place.Ask) int {
	best := -1
	if a.GPUs != 1 || a.MilliGPU >= 1000 {
		return 0
	}
	for g, free := range n.GPU[:n.Num] {
		if free >= a.MilliGPU && (best < 0 || free < n.GPU[best]) {
			best = g
		}
	}
	return max(best, 0)
}

// bestFit prefers the node with the least left over.
type bestFit struct{}

func (bestFit) Score(n *place.Load, a *place.Ask) (int32, int) {
	gpu := n.Idle - int64(a.GPUs)*int64(a.MilliGPU)
	left := float64(n.MilliCPU-a.MilliCPU)/maxSpecCPU*0.5 + float64(gpu)/maxSpecGPU*0.5
	return int32(max((1-left)*100, 0)), tightest(n, a)
}

// dotProd prefers the node whose free amounts and the demand have the smallest
// dot product.
type dotProd struct{}

func (dotProd) Score(n *place.Load, a *place.Ask) (int32, int) {
	cpu := float64(n.MilliCPU) / maxSpecCPU * (float64(a.MilliCPU) / maxSpecCPU)
	gpu := float64(n.Idle) / maxSpecGPU * (float64(int64(a.GPUs)*int64(a.MilliGPU)) / maxSpecGPU)
	return int32(100 * (1 - (cpu+gpu)/2)), tightest(n, a)
}

// packing prefers GPUs in use, then idle GPUs of nodes in use, then idle nodes.
type packing struct{}

func (packing) Score(n *place.Load, a *place.Ask) (int32, int) {
	if a.GPUs == 0 {
		return 0, 0
	}
	gpu := tightest(n, a)
	switch {
	case n.Full == n.Num:
		return max(33-int32(n.Full), int32(n.Full)), gpu
	case a.MilliGPU >= 1000:
		return max(50-int32(a.GPUs), 33), gpu
	case n.GPU[gpu] == 1000:
		return 49, gpu
	}
	return max(100-int32(n.GPU[gpu])*100/1000/10, 50), gpu
}

// clustering prefers nodes that run work with the same number of GPUs.
type clustering struct{}

func (clustering) Score(n *place.Load, a *place.Ask) (int32, int) {
	if a.GPUs == 0 {
		return 0, 0
	}
	kinds := 0
	for _, count := range n.Tags[1:] {
		if count > 0 {
			kinds++
		}
	}
	rank := int32(0)
	switch {
	case n.Tags[a.Tag()] > 0 && kinds == 1:
		rank = 75
	case n.Tags[a.Tag()] > 0:
		rank = 50
	case kinds == 0:
		rank = 25
	}
	return rank + int32(25*(maxSpecGPU-n.Idle)/maxSpecGPU), tightest(n, a)
}

// randomPlace takes any node that fits, and any GPU of it that fits.
func randomPlace(f *place.Fleet, a *place.Ask, r *rand.Rand, fits []int) (place.Spot, []int) {
	fits = fits[:0]
	for i := range f.Loads {
		if a.Fits(&f.Loads[i]) {
			fits = append(fits, i)
		}
	}
	if len(fits) == 0 {
		return place.Spot{Node: -1}, fits
	}
	spot := place.Spot{Node: fits[r.Intn(len(fits))]}
	if a.GPUs == 1 && a.MilliGPU < 1000 {
		seen := 0
		n := &f.Loads[spot.Node]
		for g, free := range n.GPU[:n.Num] {
			if free >= a.MilliGPU {
				if seen++; r.Intn(seen) == 0 {
					spot.GPU = g
				}
			}
		}
	}
	return spot, fits
}
