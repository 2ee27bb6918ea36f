package place

import (
	"cmp"
	"slices"
)

// Bounds on the search for NUMA sets: those of one size that are tried one by
// one, and above that the nodes from which sets are grown greedily.
const (
	maxNodeSets  = 20_000
	maxNodeSeeds = 64
)

// nodeNeed is what the NUMA nodes of a placement must supply together.
type nodeNeed struct {
	amounts []int64 // by resource: CPU, memory, each huge page size
	supply  [][]int64
	must    []int // nodes of the devices, counted and near, supplying what they have
	barred  []bool
	near    [][]int // a set shares a node with each of these
	devices []int   // free devices on each node, spared where none are asked for
	crowd   []int   // other instances of the work on each node
	one     bool    // refuse sets of more than one node
}

// nodeSet is a set of NUMA nodes, by index, and its cost.
type nodeSet struct {
	nodes []int
	cost  setCost
}

// setCost orders sets: fewer nodes, then fewer instances of the same work, then
// nearer, then less left over.
type setCost struct {
	count    int
	crowd    int
	distance int64
	spared   int   // free devices that the set takes cores and memory from
	waste    int64 // thousandths of the nodes' supply left over
}

func (a setCost) compare(b setCost) int {
	return cmp.Or(cmp.Compare(a.count, b.count), cmp.Compare(a.crowd, b.crowd), cmp.Compare(a.distance, b.distance), cmp.Compare(a.spared, b.spared), cmp.Compare(a.waste, b.waste))
}

// nodeSets returns sets of the fewest nodes that meet the need, the best
// first, at most so many; none where there is none.
func (s *State) nodeSets(e *effort, need *nodeNeed, most int) []nodeSet {
	return s.searchNodes(e, need, most, 1)
}

// widerSets is nodeSets with sets of more nodes than needed after the others,
// until there are so many.
func (s *State) widerSets(e *effort, need *nodeNeed, most int) []nodeSet {
	return s.searchNodes(e, need, most, most)
}

// searchNodes lists sets of ever more nodes until there are enough.
func (s *State) searchNodes(e *effort, need *nodeNeed, most, enough int) []nodeSet {
	var useful []int
	for n := range s.nodes {
		if !need.barred[n] && (need.supplies(n) || slices.Contains(need.must, n)) {
			useful = append(useful, n)
		}
	}
	if need.empty() && len(need.near) == 0 {
		nodes := useful
		if len(need.must) > 0 {
			nodes = need.must
		}
		if c := s.costed(need, nodes); !need.one || c.cost.count <= 1 {
			return []nodeSet{c}
		}
	}
	limit := len(useful)
	if need.one {
		limit = min(limit, 1)
	}
	var found []nodeSet
	for k := need.fewest(useful); k <= limit && len(found) < enough; k++ {
		if combinations(len(useful), k) > maxNodeSets {
			found = append(found, s.grownSets(e, need, useful)...)
			break
		}
		found = append(found, s.everySet(e, need, useful, k)...)
	}
	return bestSets(found, most)
}

func bestSets(found []nodeSet, most int) []nodeSet {
	slices.SortStableFunc(found, func(a, b nodeSet) int { return a.cost.compare(b.cost) })
	return found[:min(most, len(found))]
}

func (need *nodeNeed) empty() bool {
	return !slices.ContainsFunc(need.amounts, func(a int64) bool { return a > 0 })
}

func (need *nodeNeed) supplies(n int) bool {
	for i, a := range need.amounts {
		if a > 0 && need.supply[n][i] > 0 {
			return true
		}
	}
	return need.empty()
}

// fewest is a lower bound on the size of a set: for each resource alone, the
// richest nodes that reach the amount.
func (need *nodeNeed) fewest(useful []int) int {
	most := 1
	column := make([]int64, len(useful))
	for i, amount := range need.amounts {
		for j, n := range useful {
			column[j] = need.supply[n][i]
		}
		slices.Sort(column)
		k := 0
		for ; amount > 0 && k < len(column); k++ {
			amount -= column[len(column)-1-k]
		}
		if amount > 0 {
			return len(useful) + 1
		}
		most = max(most, k)
	}
	return most
}

func (need *nodeNeed) met(nodes []int) bool {
	for i, amount := range need.amounts {
		for _, n := range nodes {
			if amount -= need.supply[n][i]; amount <= 0 {
				break
			}
		}
		if amount > 0 {
			return false
		}
	}
	return true
}

func (s *State) everySet(e *effort, need *nodeNeed, useful []int, k int) []nodeSet {
	var found []nodeSet
	set := make([]int, 0, k)
	var visit func(from int)
	visit = func(from int) {
		if len(set) == k {
			if !need.met(set) {
				return
			}
			if c := s.costed(need, set); need.allows(set, c.cost.count) {
				c.nodes = slices.Clone(set)
				found = append(found, c)
			}
			return
		}
		for i := from; i <= len(useful)-(k-len(set)); i++ {
			if !e.spend(1 + len(set)) {
				return
			}
			set = append(set, useful[i])
			visit(i + 1)
			set = set[:len(set)-1]
		}
	}
	visit(0)
	return found
}

// grownSets starts from every node, up to a bound, and adds the one that covers
// most of what is still missing, the nearest of equals, until nothing is.
func (s *State) grownSets(e *effort, need *nodeNeed, useful []int) []nodeSet {
	var found []nodeSet
	for _, seed := range useful[:min(len(useful), maxNodeSeeds)] {
		var set []int
		in, near := make([]bool, len(s.nodes)), make([]int64, len(s.nodes))
		missing := slices.Clone(need.amounts)
		for n := seed; n >= 0; n = need.most(useful, in, near, missing) {
			if !e.spend(len(useful) * (1 + len(missing))) {
				return found
			}
			set, in[n] = append(set, n), true
			for i := range missing {
				missing[i] -= need.supply[n][i]
			}
			for _, other := range useful {
				near[other] += s.distance[n][other]
			}
		}
		slices.Sort(set)
		if !need.met(set) {
			continue
		}
		if c := s.costed(need, set); need.allows(set, c.cost.count) {
			found = append(found, c)
		}
	}
	return found
}

// most is the node that brings most of what is missing, or -1 where nothing is
// or no node is left.
func (need *nodeNeed) most(useful []int, in []bool, near, missing []int64) int {
	best, bestCover := -1, int64(0)
	if !slices.ContainsFunc(missing, func(m int64) bool { return m > 0 }) {
		return -1
	}
	for _, n := range useful {
		if in[n] {
			continue
		}
		if cover := need.cover(missing, n); best < 0 || cover > bestCover || cover == bestCover && near[n] < near[best] {
			best, bestCover = n, cover
		}
	}
	return best
}

// allows checks what no sum tells: nearness and the demand for one node.
func (need *nodeNeed) allows(set []int, count int) bool {
	for _, near := range need.near {
		if !slices.ContainsFunc(near, func(n int) bool { return slices.Contains(set, n) || slices.Contains(need.must, n) }) {
			return false
		}
	}
	return !need.one || count <= 1
}

// cover is how much of the missing amounts node n brings, in thousandths of
// what is asked for.
func (need *nodeNeed) cover(missing []int64, n int) int64 {
	var sum int64
	for i, lacking := range missing {
		if need.amounts[i] > 0 && lacking > 0 {
			sum += int64(float64(min(need.supply[n][i], lacking)) / float64(need.amounts[i]) * 1000)
		}
	}
	return sum
}

func (s *State) costed(need *nodeNeed, nodes []int) nodeSet {
	var few [16]int // most sets are no larger, and many are costed
	union := append(few[:0], nodes...)
	for _, m := range need.must {
		if !slices.Contains(union, m) {
			union = append(union, m)
		}
	}
	c := setCost{count: len(union)}
	for i, a := range union {
		for _, b := range union[i+1:] {
			c.distance += s.distance[a][b]
		}
		c.spared += need.devices[a]
		c.crowd += need.crowd[a]
	}
	for i, amount := range need.amounts {
		if amount <= 0 {
			continue
		}
		var have float64
		for _, n := range nodes {
			have += float64(need.supply[n][i])
		}
		c.waste += int64((have - float64(amount)) / float64(amount) * 1000)
	}
	return nodeSet{nodes: nodes, cost: c}
}
