package place

import (
	"math/bits"
	"slices"
)

// Bounds on the devices that are partitioned. Up to eight, the choice is that of
// NVIDIA's go-gpuallocator, which was made for such servers. On larger ones it
// would give a request a set of 1200 where there is one of 1280, for the sake
// of sets that nobody has asked for; there the best joined set comes first.
const (
	maxPartition = 16
	maxAllocator = 8
)

// partition divides the devices into sets of k, and one smaller rest, so that
// the pair scores within the sets sum to the most: later requests find
// sets as well joined as possible, as NVIDIA's go-gpuallocator has it. Of equal
// partitions it takes the one with the best joined rest, then the first. It
// returns the full sets.
func (f *fabric) partition(devices []int, k int) [][]int {
	n := len(devices)
	if k < 1 || k > n || n > maxPartition {
		return nil
	}
	p := &partitioner{k: k, score: make([]int64, 1<<n), best: make([]int64, 1<<n), first: make([]uint32, 1<<n)}
	for i := range p.best {
		p.best[i] = -1
	}
	p.best[0] = 0
	for mask := 1; mask < 1<<n; mask++ {
		low := bits.TrailingZeros(uint(mask))
		p.score[mask] = p.score[mask&(mask-1)]
		for m := mask & (mask - 1); m != 0; m &= m - 1 {
			p.score[mask] += int64(f.score[devices[low]][devices[bits.TrailingZeros(uint(m))]])
		}
	}
	all := uint32(1)<<n - 1
	most, without := int64(-1), uint32(0)
	eachSubset(all, n%k, func(rest uint32) {
		total := p.solve(all &^ rest)
		if total > most || (total == most && p.score[rest] > p.score[without]) {
			most, without = total, rest
		}
	})
	var sets [][]int
	for mask := all &^ without; mask != 0; mask &^= p.first[mask] {
		var set []int
		for m := p.first[mask]; m != 0; m &= m - 1 {
			set = append(set, devices[bits.TrailingZeros32(m)])
		}
		sets = append(sets, set)
	}
	return sets
}

type partitioner struct {
	k     int
	score []int64  // of a set, by mask
	best  []int64  // total of the best partition of a mask, -1: not known yet
	first []uint32 // its set with the lowest device
}

// solve returns the best total for a mask whose size is a multiple of k.
func (p *partitioner) solve(mask uint32) int64 {
	if p.best[mask] >= 0 {
		return p.best[mask]
	}
	low := mask & -mask
	best, first := int64(-1), uint32(0)
	eachSubset(mask&^low, p.k-1, func(rest uint32) {
		set := rest | low
		if total := p.score[set] + p.solve(mask&^set); total > best {
			best, first = total, set
		}
	})
	p.best[mask], p.first[mask] = best, first
	return best
}

// eachSubset calls visit with every subset of mask that has k bits, in
// lexicographic order of the bits' positions.
func eachSubset(mask uint32, k int, visit func(uint32)) {
	if k == 0 {
		visit(0)
		return
	}
	for m := mask; bits.OnesCount32(m) >= k; m &= m - 1 {
		low := m & -m
		eachSubset(m&^low, k-1, func(rest uint32) { visit(rest | low) })
	}
}

// partitioned returns the sets of the best partition where that is how a
// request is to be answered: it asks for several whole devices, and for them
// alone. On large machines one of the sets must be as well joined as the best of
// all.
func (ds *deviceSearch) partitioned(r int, open []int, all [][]int) [][]int {
	if len(ds.req.Devices) != 1 || len(ds.req.Links) > 0 || !ds.req.Devices[r].Fraction.Whole() {
		return nil
	}
	k := ds.req.Devices[r].count()
	if k < 2 || len(open) > maxPartition {
		return nil
	}
	most := func(sets [][]int) (score int64) {
		for _, set := range sets {
			score = max(score, ds.s.fabric.setScore(set))
		}
		return score
	}
	sets := ds.s.fabric.partition(open, k)
	if len(open) > maxAllocator && most(sets) < most(all) {
		return nil
	}
	for _, set := range sets {
		slices.Sort(set)
	}
	return sets
}
