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
	beside := set.all()
	var found [][]int
	switch {
	case combinations(len(open), k) <= maxSets:
		found = ds.combine(r, open, k)
		if sets := ds.partitioned(r, open, found); !ds.every && sets != nil {
			return sets
		}
	case len(ds.req.Links) > 0:
		found = append(ds.combine(r, open, k), ds.grow(r, open, k, beside)...)
	default:
		found = ds.grow(r, open, k, beside)
	}
	if ds.exact {
		return found
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
	linked := ds.every || ds.linkedToOther(r)
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
	for _, d := range pick {
		for _, b := range beside {
			p.score += int64(ds.s.fabric.score[d][b])
		}
		p.loss += ds.lossOf(r, d)
		if len(pick) > 1 || ds.s.linkDemand {
			p.loss += ds.degree[d]
		}
	}
	return p
}

// lossOf rates what granting a part of device d to request r leaves unusable.
func (ds *deviceSearch) lossOf(r, d int) int64 {
	if known := ds.loss[r][d]; known >= 0 {
		return known
	}
	ask := ds.req.deviceAsk(r)
	_, left, _ := ds.s.use[d].grant(&ds.s.machine.Devices[d], ask)
	if !ask.Whole() && ds.s.use[d].idle() {
		left += 1000 // breaking a whole device costs more than filling a broken one
	}
	ds.loss[r][d] = left
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

// combine lists the k-sets whose pairs satisfy the links, at most maxSets.
func (ds *deviceSearch) combine(r int, open []int, k int) [][]int {
	var found [][]int
	pick := make([]int, 0, k)
	var visit func(from int)
	visit = func(from int) {
		if len(pick) == k {
			found = append(found, slices.Clone(pick))
			return
		}
		for i := from; i <= len(open)-(k-len(pick)); i++ {
			if len(found) >= maxSets || !ds.effort.spend(1+len(pick)) {
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
