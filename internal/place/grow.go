package place

import (
	"cmp"
	"slices"
)

// seeds are the devices from which sets are grown: all, up to a bound, or the
// few nearest to what is picked already.
func (ds *deviceSearch) seeds(open, beside []int) []int {
	if len(beside) == 0 {
		return open[:min(len(open), maxCandidates)]
	}
	near := slices.Clone(open)
	gain := func(d int) (sum int64) {
		for _, b := range beside {
			sum += int64(ds.s.fabric.score[d][b])
		}
		return sum
	}
	slices.SortStableFunc(near, func(a, b int) int { return cmp.Compare(gain(b), gain(a)) })
	return near[:min(len(near), 2*laterWidth)]
}

// grown is a set under construction.
type grown struct {
	ds      *deviceSearch
	r       int
	open    []int
	pick    []int
	in      []bool  // by device
	gain    []int64 // by device: its links to the set and to what is beside it
	strange []int   // by device: members that no link joins it to as the request asks
}

// grow builds one k-set from every seed, always adding the best joined, and
// improves it by swaps.
func (ds *deviceSearch) grow(r int, open []int, k int, beside []int) [][]int {
	var found [][]int
	n := len(ds.s.machine.Devices)
	g := &grown{ds: ds, r: r, open: open, in: make([]bool, n), gain: make([]int64, n), strange: make([]int, n)}
	for _, seed := range ds.seeds(open, beside) {
		g.pick = make([]int, 0, k)
		clear(g.in)
		clear(g.gain)
		clear(g.strange)
		for _, b := range beside {
			g.attract(b, 1)
		}
		for d := seed; d >= 0 && len(g.pick) < k; d = g.nearest() {
			if !ds.effort.spend(len(open)) {
				return found
			}
			g.pick = append(g.pick, d)
			g.add(d, 1)
		}
		if len(g.pick) == k {
			g.improve()
			found = append(found, g.pick)
		}
	}
	return found
}

// attract counts the links of all open devices to d.
func (g *grown) attract(d int, sign int64) {
	gain, to := g.gain, g.ds.s.fabric.score[d]
	for _, o := range g.open {
		gain[o] += sign * int64(to[o])
	}
}

// add takes d into the set (sign 1) or out of it (-1).
func (g *grown) add(d int, sign int64) {
	g.attract(d, sign)
	g.in[d] = sign > 0
	if len(g.ds.req.Links) == 0 {
		return
	}
	for _, o := range g.open {
		if o != d && !g.ds.pairOK(g.r, d, o) {
			g.strange[o] += int(sign)
		}
	}
}

// nearest is the best joined device that the set may take, or -1.
func (g *grown) nearest() int {
	in, strange, gain := g.in, g.strange, g.gain
	best, most := -1, int64(-1)
	for _, d := range g.open {
		if gain[d] > most && !in[d] && strange[d] == 0 {
			best, most = d, gain[d]
		}
	}
	return best
}

// improve swaps members for outsiders while the sum of pair scores rises.
func (g *grown) improve() {
	score := g.ds.s.fabric.score
	for range 2 * len(g.pick) {
		bestGain, out, with := int64(0), -1, -1
		for i, p := range g.pick {
			if !g.ds.effort.spend(len(g.open)) {
				return
			}
			in, gain, to := g.in, g.gain, score[p]
			for _, d := range g.open {
				if better := gain[d] - int64(to[d]) - gain[p]; better > bestGain && !in[d] && g.swapOK(p, d) {
					bestGain, out, with = better, i, d
				}
			}
		}
		if out < 0 {
			return
		}
		g.add(g.pick[out], -1)
		g.add(with, 1)
		g.pick[out] = with
	}
}

// swapOK reports whether d is joined with all members but p as the request
// asks.
func (g *grown) swapOK(p, d int) bool {
	strange := g.strange[d]
	if strange > 0 && !g.ds.pairOK(g.r, p, d) {
		strange--
	}
	return strange == 0
}
