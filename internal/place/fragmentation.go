package place

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
)

// Demand is how often a shape is asked for.
type Demand struct {
	Ask   Ask
	Count int64
}

// Fragmentation measures how much of a node's idle GPUs the typical demand
// cannot use, as "Beware of Fragmentation" (USENIX ATC'23) defines it: for each
// typical shape, all idle GPU where the shape does not fit or needs none, else
// the free parts too small for it; weighted by how often it is asked for.
//
// All amounts are integers, thousandths of a GPU times Total, so that equal
// states compare equal. Tables by CPU and GPU thresholds make one evaluation a
// handful of look-ups instead of a walk over all shapes.
type Fragmentation struct {
	Total  int64 // of the counts
	models []fragTables
	slot   [1001]uint8 // free thousandths of a GPU → row of the single tables
}

// fragTables answers for one GPU model.
type fragTables struct {
	cpus   []int64                   // thresholds, ascending
	single [][]int64                 // [cpu][slot] → count of one-GPU shapes that such a free part serves
	multi  [][MaxFleetGPUs + 1]int64 // [cpu][whole GPUs free] → count of larger shapes served
}

// NewFragmentation prepares the tables for a demand and models 0 to n-1.
func NewFragmentation(demand []Demand, models int) *Fragmentation {
	f := &Fragmentation{}
	var millis []int16
	for _, d := range demand {
		f.Total += d.Count
		if d.Ask.GPUs == 1 {
			millis = append(millis, d.Ask.MilliGPU)
		}
	}
	slices.Sort(millis)
	millis = slices.Compact(millis)
	millis = thin(millis, maxGPULevels)
	for free := range f.slot {
		n, _ := slices.BinarySearch(millis, int16(free)+1)
		f.slot[free] = uint8(n)
	}
	for m := range models {
		f.models = append(f.models, newFragTables(demand, uint8(m), millis))
	}
	return f
}

// Bounds on the tables: with more different amounts than these, some near ones
// are taken for equal. Slots must fit a byte.
const (
	maxCPULevels = 512
	maxGPULevels = 254
)

// thin keeps at most n of the ascending values, evenly, the last one always.
func thin[T any](values []T, n int) []T {
	if len(values) <= n {
		return values
	}
	kept := make([]T, n)
	for i := range kept {
		kept[i] = values[(i+1)*len(values)/n-1]
	}
	return kept
}

func newFragTables(demand []Demand, model uint8, millis []int16) fragTables {
	var t fragTables
	accessible := slices.DeleteFunc(slices.Clone(demand), func(d Demand) bool {
		return d.Ask.GPUs == 0 || !d.Ask.Accepts(&Load{model: model})
	})
	slices.SortFunc(accessible, func(a, b Demand) int { return cmp.Compare(a.Ask.MilliCPU, b.Ask.MilliCPU) })
	for _, d := range accessible {
		t.cpus = append(t.cpus, d.Ask.MilliCPU)
	}
	t.cpus = thin(slices.Compact(t.cpus), maxCPULevels)
	t.single = make([][]int64, len(t.cpus)+1)
	t.multi = make([][MaxFleetGPUs + 1]int64, len(t.cpus)+1)
	t.single[0] = make([]int64, len(millis)+1)
	next := 0
	for c := 1; c < len(t.single); c++ {
		t.single[c], t.multi[c] = slices.Clone(t.single[c-1]), t.multi[c-1]
		for ; next < len(accessible) && accessible[next].Ask.MilliCPU <= t.cpus[c-1]; next++ {
			d := &accessible[next]
			if d.Ask.GPUs == 1 {
				first, _ := slices.BinarySearch(millis, d.Ask.MilliGPU)
				for s := first + 1; s <= len(millis); s++ {
					t.single[c][s] += d.Count
				}
				continue
			}
			for n := d.Ask.GPUs; n <= MaxFleetGPUs; n++ {
				t.multi[c][n] += d.Count
			}
		}
	}
	return t
}

// level is the number of CPU thresholds that a node reaches.
func (t *fragTables) level(cpu int64) int {
	lo, hi := 0, len(t.cpus)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if t.cpus[mid] <= cpu {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// Node returns the fragmentation of a node, in thousandths of a GPU times
// Total.
func (f *Fragmentation) Node(n *Load) int64 {
	t := &f.models[n.model]
	return n.Idle*f.Total - f.usable(t, n, t.level(n.MilliCPU))
}

// usable is the idle GPU that typical shapes can use, at a CPU level.
func (f *Fragmentation) usable(t *fragTables, n *Load, level int) int64 {
	single := t.single[level]
	sum := int64(n.Full) * 1000 * t.multi[level][n.Full]
	for _, free := range n.GPU[:n.Num] {
		sum += int64(free) * single[f.slot[free]]
	}
	return sum
}

// After returns the least fragmentation that the node can have after taking
// the shape, and the GPU that a shared request must take for it, the first of
// equals. The shape must fit.
func (f *Fragmentation) After(n *Load, s *Ask) (frag int64, gpu int) {
	t := &f.models[n.model]
	level := t.level(n.MilliCPU - s.MilliCPU)
	if s.GPUs == 0 {
		return n.Idle*f.Total - f.usable(t, n, level), 0
	}
	single := t.single[level]
	if s.MilliGPU >= 1000 {
		full := int(n.Full) - s.GPUs
		sum := int64(full) * 1000 * t.multi[level][full]
		for _, free := range n.GPU[:n.Num] {
			if free < 1000 {
				sum += int64(free) * single[f.slot[free]]
			}
		}
		sum += int64(full) * 1000 * single[f.slot[1000]]
		return (n.Idle-int64(s.GPUs)*1000)*f.Total - sum, 0
	}
	var sum int64
	for _, free := range n.GPU[:n.Num] {
		sum += int64(free) * single[f.slot[free]]
	}
	keep := int64(n.Full) * 1000 * t.multi[level][n.Full]
	broken := int64(0)
	if n.Full > 0 {
		broken = int64(n.Full-1) * 1000 * t.multi[level][n.Full-1]
	}
	best := int64(math.MinInt64)
	for g, free := range n.GPU[:n.Num] {
		if free < s.MilliGPU {
			continue
		}
		left := free - s.MilliGPU
		usable := sum - int64(free)*single[f.slot[free]] + int64(left)*single[f.slot[left]]
		if free == 1000 {
			usable += broken
		} else {
			usable += keep
		}
		if usable > best {
			best, gpu = usable, g
		}
	}
	return (n.Idle-int64(s.MilliGPU))*f.Total - best, gpu
}

// Typical returns the most frequent shapes that cover at least the given
// part of the demand, most frequent first, equal ones by size. Memory plays no
// part, as in the paper.
func Typical(asks []Ask, part float64) []Demand {
	counts := map[Ask]int64{}
	for _, a := range asks {
		a.Memory = 0
		counts[a]++
	}
	all := make([]Demand, 0, len(counts))
	for a, n := range counts {
		all = append(all, Demand{a, n})
	}
	slices.SortFunc(all, func(x, y Demand) int {
		return cmp.Or(
			cmp.Compare(y.Count, x.Count), cmp.Compare(y.Ask.MilliCPU, x.Ask.MilliCPU),
			cmp.Compare(y.Ask.MilliGPU, x.Ask.MilliGPU), cmp.Compare(y.Ask.GPUs, x.Ask.GPUs),
			compareModels(y.Ask.models, x.Ask.models),
		)
	})
	var sum int64
	for i, d := range all {
		if sum += d.Count; float64(sum) >= part*float64(len(asks)) {
			return all[:i+1]
		}
	}
	return all
}

// compareModels orders sets of models as their sorted names joined would be.
func compareModels(a, b uint64) int {
	for a != 0 && b != 0 {
		x, y := bits.TrailingZeros64(a), bits.TrailingZeros64(b)
		if x != y {
			return x - y
		}
		a, b = a&(a-1), b&(b-1)
	}
	return cmp.Compare(a, b)
}
