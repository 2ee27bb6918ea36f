package place

import (
	"cmp"
	"slices"
)

// maxNodeSets bounds the NUMA sets of one size that are tried one by one; above
// it, sets are grown greedily from every node.
const maxNodeSets = 20_000

// nodeNeed is what the NUMA nodes of a placement must supply together.
type nodeNeed struct {
	amounts []int64 // by resource: CPU, memory, each huge page size
	supply  [][]int64
	must    []int // nodes of the devices, counted and near, supplying what they have
	barred  []bool
	near    [][]int // a set shares a node with each of these
	devices []int   // free devices on each node, spared where none are asked for
	one     bool    // refuse sets of more than one node
}

// nodeSet is a set of NUMA nodes, by index, and its cost.
type nodeSet struct {
	nodes []int
	cost  setCost
}

// setCost orders sets: fewer nodes, then nearer, then less left over.
type setCost struct {
	count    int
	distance int64
	spared   int   // free devices that the set takes cores and memory from
	waste    int64 // thousandths of the nodes' supply left over
}

func (a setCost) compare(b setCost) int {
	return cmp.Or(cmp.Compare(a.count, b.count), cmp.Compare(a.distance, b.distance), cmp.Compare(a.spared, b.spared), cmp.Compare(a.waste, b.waste))
}

// nodeSets returns the best set and the runner-up, or none.
func (s *State) nodeSets(need *nodeNeed) []nodeSet {
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
	for k := need.fewest(useful); k <= limit; k++ {
		var found []nodeSet
		if combinations(len(useful), k) <= maxNodeSets {
			found = s.everySet(need, useful, k)
		} else {
			found = s.grownSets(need, useful, k)
		}
		if len(found) > 0 {
			slices.SortStableFunc(found, func(a, b nodeSet) int { return a.cost.compare(b.cost) })
			return found[:min(2, len(found))]
		}
	}
	return nil
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

func (s *State) everySet(need *nodeNeed, useful []int, k int) []nodeSet {
	var found []nodeSet
	set := make([]int, 0, k)
	var visit func(from int)
	visit = func(from int) {
		if len(set) == k {
			if c := s.costed(need, set); need.met(set) && need.allows(set, c.cost.count) {
				c.nodes = slices.Clone(set)
				found = append(found, c)
			}
			return
		}
		for i := from; i <= len(useful)-(k-len(set)); i++ {
			set = append(set, useful[i])
			visit(i + 1)
			set = set[:len(set)-1]
		}
	}
	visit(0)
	return found
}

// grownSets starts from every node and adds the one that covers most of what
// is still missing, the nearest of equals.
func (s *State) grownSets(need *nodeNeed, useful []int, k int) []nodeSet {
	var found []nodeSet
	for _, seed := range useful {
		set := []int{seed}
		for len(set) < k && !need.met(set) {
			best, bestCover, bestNear := -1, int64(-1), int64(0)
			for _, n := range useful {
				if slices.Contains(set, n) {
					continue
				}
				cover, near := need.cover(set, n), int64(0)
				for _, m := range set {
					near += s.distance[m][n]
				}
				if cover > bestCover || (cover == bestCover && near < bestNear) {
					best, bestCover, bestNear = n, cover, near
				}
			}
			set = append(set, best)
		}
		slices.Sort(set)
		if c := s.costed(need, set); need.met(set) && need.allows(set, c.cost.count) {
			found = append(found, c)
		}
	}
	return found
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

// cover is how much of the missing amounts node n brings, in thousandths each.
func (need *nodeNeed) cover(set []int, n int) int64 {
	var sum int64
	for i, amount := range need.amounts {
		if amount <= 0 {
			continue
		}
		missing := amount
		for _, m := range set {
			missing -= need.supply[m][i]
		}
		if missing > 0 {
			sum += int64(float64(min(need.supply[n][i], missing)) / float64(amount) * 1000)
		}
	}
	return sum
}

func (s *State) costed(need *nodeNeed, nodes []int) nodeSet {
	union := slices.Clone(nodes)
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
