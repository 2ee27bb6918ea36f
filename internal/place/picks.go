package place

import (
	"cmp"
	"slices"
)

// How many answers to one request are followed up: all NUMA signatures of the
// first request, the nearest few of later ones, and many where a link to a
// later request may rule most of them out.
const (
	firstWidth  = 40
	laterWidth  = 2
	linkedWidth = 512
)

// picks returns ways to answer device request r from the open devices, best
// first, knowing what earlier requests picked.
func (ds *deviceSearch) picks(r int, open []int, set deviceSet) [][]int {
	k := ds.req.Devices[r].count()
	if k > len(open) {
		return nil
	}
	if sets := ds.partitioned(r, open); sets != nil {
		return sets
	}
	beside := set.all()
	var found [][]int
	switch {
	case combinations(len(open), k) <= maxSets:
		found = ds.combine(r, open, k)
	case len(ds.req.Links) > 0:
		found = append(ds.combine(r, open, k), ds.grow(r, open, k, beside)...)
	default:
		found = ds.grow(r, open, k, beside)
	}
	return ds.best(r, found, beside, len(beside) == 0)
}

// ratedPick is one answer to a request with what orders it among the others.
type ratedPick struct {
	pick  []int
	score int64 // links within it and to what is beside it
	loss  int64
}

// best thins the answers: one for each set of NUMA nodes, the best joined,
// unless a link to another request needs them all.
func (ds *deviceSearch) best(r int, found [][]int, beside []int, first bool) [][]int {
	linked := ds.linkedToOther(r)
	rated := make([]ratedPick, 0, len(found))
	at := map[string]int{}
	for _, pick := range found {
		p := ds.rate(r, pick, beside)
		if linked {
			rated = append(rated, p)
			continue
		}
		key := ds.signature(pick)
		i, ok := at[key]
		switch {
		case !ok:
			at[key] = len(rated)
			rated = append(rated, p)
		case compareRated(p, rated[i]) < 0:
			rated[i] = p
		}
	}
	slices.SortFunc(rated, compareRated)
	if !linked && len(rated) > 0 {
		// Far worse joined sets do not come into the choice in the end.
		least := rated[0].score * 9 / 10
		rated = slices.DeleteFunc(rated, func(p ratedPick) bool { return p.score < least })
	}
	width := laterWidth
	if linked {
		width = linkedWidth
	} else if first {
		width = firstWidth / len(ds.req.Devices)
	}
	picks := make([][]int, 0, min(len(rated), width))
	for _, p := range rated[:cap(picks)] {
		picks = append(picks, p.pick)
	}
	return picks
}

func compareRated(a, b ratedPick) int {
	return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.loss, b.loss), slices.Compare(a.pick, b.pick))
}

func (ds *deviceSearch) rate(r int, pick, beside []int) ratedPick {
	p := ratedPick{pick: pick, score: ds.s.fabric.setScore(pick)}
	ask := ds.req.deviceAsk(r)
	for _, d := range pick {
		for _, b := range beside {
			p.score += int64(ds.s.fabric.score[d][b])
		}
		p.loss += ds.lossOf(d, ask)
		if len(pick) > 1 || ds.s.linkDemand {
			p.loss += ds.degree[d]
		}
	}
	return p
}

// lossOf rates what granting a part of device d leaves unusable.
func (ds *deviceSearch) lossOf(d int, ask deviceAsk) int64 {
	_, left, _ := ds.s.use[d].grant(&ds.s.machine.Devices[d], ask)
	if !ask.Whole() && ds.s.use[d].idle() {
		left += 1000 // breaking a whole device costs more than filling a broken one
	}
	return left
}

// linkedToOther reports whether a link joins request r to another one.
func (ds *deviceSearch) linkedToOther(r int) bool {
	for _, l := range ds.req.Links {
		if !l.covers(ds.req, r) {
			continue
		}
		for other := range ds.req.Devices {
			if other != r && l.covers(ds.req, other) {
				return true
			}
		}
	}
	return false
}

// combinations returns n over k, saturating above maxSets.
func combinations(n, k int) int {
	k = min(k, n-k)
	c := 1
	for i := 1; i <= k; i++ {
		c = c * (n - k + i) / i
		if c > maxSets {
			return maxSets + 1
		}
	}
	return c
}

// combine lists the k-sets whose pairs satisfy the links, by depth-first
// search within the step budget.
func (ds *deviceSearch) combine(r int, open []int, k int) [][]int {
	var found [][]int
	pick := make([]int, 0, k)
	steps := 0
	var visit func(from int)
	visit = func(from int) {
		if len(pick) == k {
			found = append(found, slices.Clone(pick))
			return
		}
		for i := from; i <= len(open)-(k-len(pick)); i++ {
			if steps++; steps > maxSteps || len(found) >= maxSets {
				return
			}
			d := open[i]
			if slices.ContainsFunc(pick, func(p int) bool { return !ds.pairOK(r, p, d) }) {
				continue
			}
			pick = append(pick, d)
			visit(i + 1)
			pick = pick[:len(pick)-1]
		}
	}
	visit(0)
	return found
}

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

// grow builds one k-set from every seed, always adding the best joined, and
// improves it by swaps.
func (ds *deviceSearch) grow(r int, open []int, k int, beside []int) [][]int {
	score := ds.s.fabric.score
	var found [][]int
	for _, seed := range ds.seeds(open, beside) {
		gain := make([]int64, len(ds.s.machine.Devices))
		in := make([]bool, len(gain))
		add := func(d int, sign int64) {
			for _, o := range open {
				gain[o] += sign * int64(score[o][d])
			}
		}
		for _, b := range beside {
			add(b, 1)
		}
		pick := []int{seed}
		in[seed] = true
		add(seed, 1)
		for len(pick) < k {
			best := -1
			for _, d := range open {
				if in[d] || (best >= 0 && gain[d] <= gain[best]) || slices.ContainsFunc(pick, func(p int) bool { return !ds.pairOK(r, p, d) }) {
					continue
				}
				best = d
			}
			if best < 0 {
				break
			}
			pick = append(pick, best)
			in[best] = true
			add(best, 1)
		}
		if len(pick) == k {
			ds.improve(r, open, pick, in, gain, add)
			found = append(found, pick)
		}
	}
	return found
}

// improve swaps members for outsiders while the sum of pair scores rises.
func (ds *deviceSearch) improve(r int, open, pick []int, in []bool, gain []int64, add func(int, int64)) {
	score := ds.s.fabric.score
	for range 2 * len(pick) {
		bestGain, out, with := int64(0), -1, -1
		for i, p := range pick {
			for _, d := range open {
				if in[d] {
					continue
				}
				if g := gain[d] - int64(score[d][p]) - gain[p]; g > bestGain && ds.swapOK(r, pick, i, d) {
					bestGain, out, with = g, i, d
				}
			}
		}
		if out < 0 {
			return
		}
		in[pick[out]], in[with] = false, true
		add(pick[out], -1)
		add(with, 1)
		pick[out] = with
	}
}

func (ds *deviceSearch) swapOK(r int, pick []int, out, with int) bool {
	for i, p := range pick {
		if i != out && !ds.pairOK(r, p, with) {
			return false
		}
	}
	return true
}
