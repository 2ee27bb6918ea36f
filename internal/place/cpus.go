package place

import (
	"cmp"
	"math"
	"slices"
)

// takeCPUs chooses n of the free CPUs so that they touch as few packages, then
// NUMA nodes, then caches, then cores as possible and leave as few free CPUs
// as possible in what they touch; ties go to the lowest numbers. It returns
// nil where fewer than n are free. The choice is exact: a knapsack over the
// tree of the machine.
func takeCPUs(free []*CPU, n int) []*CPU {
	if n <= 0 || n > len(free) {
		return nil
	}
	root := newCPUGroup(free, levelOrder(free))
	w := weightsFor(free)
	root.solve(n, &w)
	taken := root.take(n, nil)
	slices.SortFunc(taken, func(a, b *CPU) int { return a.ID - b.ID })
	return taken
}

type cpuLevel int

const (
	levelPackage cpuLevel = iota
	levelNUMA
	levelCache
	levelCore
	levels
)

type coreKey struct{ pkg, core int }

func (l cpuLevel) of(c *CPU) coreKey {
	switch l {
	case levelPackage:
		if c.Package < 0 { // unknown is no package in common
			return coreKey{1, -1 - c.Core}
		}
		return coreKey{core: c.Package}
	case levelNUMA:
		return coreKey{core: c.NUMA}
	case levelCache:
		if c.Cache < 0 { // unknown is no cache in common
			return coreKey{c.Package + 1, -1 - c.Core}
		}
		return coreKey{core: c.Cache}
	}
	return coreKey{c.Package, c.Core}
}

// levelOrder puts the wider of package and NUMA node first: a node holds
// several packages on some machines, a package several nodes on others.
func levelOrder(free []*CPU) []cpuLevel {
	counts := countGroups(free)
	if counts[levelNUMA] < counts[levelPackage] {
		return []cpuLevel{levelNUMA, levelPackage, levelCache, levelCore}
	}
	return []cpuLevel{levelPackage, levelNUMA, levelCache, levelCore}
}

func countGroups(cpus []*CPU) (counts [levels]int) {
	for l := range levels {
		seen := map[coreKey]bool{}
		for _, c := range cpus {
			seen[l.of(c)] = true
		}
		counts[l] = len(seen)
	}
	return counts
}

// weights make one number out of (packages, nodes, caches, cores, leftover)
// that compares like the tuple.
type weights [levels]int64

func weightsFor(free []*CPU) (w weights) {
	counts := countGroups(free)
	radix := int64(len(free))*int64(levels) + 1
	for l := levelCore; l >= levelPackage; l-- {
		w[l] = radix
		radix *= int64(counts[l]) + 1
	}
	return w
}

// cpuGroup is one package, NUMA node, cache or core with its free CPUs.
type cpuGroup struct {
	level    cpuLevel // of this group; levels for the root
	free     []*CPU   // where it has no children
	size     int
	children []*cpuGroup
	cost     []int64   // cost[k] of taking k CPUs from here
	choice   [][]int32 // choice[i][k]: how many of k come from child i
}

func newCPUGroup(free []*CPU, order []cpuLevel) *cpuGroup {
	g := &cpuGroup{level: levels, size: len(free)}
	g.split(free, order)
	return g
}

func (g *cpuGroup) split(free []*CPU, order []cpuLevel) {
	if len(order) == 0 {
		g.free = free
		slices.SortFunc(g.free, func(a, b *CPU) int { return a.ID - b.ID })
		return
	}
	groups := map[coreKey][]*CPU{}
	for _, c := range free {
		k := order[0].of(c)
		groups[k] = append(groups[k], c)
	}
	for _, members := range groups {
		child := &cpuGroup{level: order[0], size: len(members)}
		child.split(members, order[1:])
		g.children = append(g.children, child)
	}
	slices.SortFunc(g.children, func(a, b *cpuGroup) int { return cmp.Compare(a.lowest(), b.lowest()) })
}

func (g *cpuGroup) lowest() int {
	if len(g.children) > 0 {
		return g.children[0].lowest()
	}
	return g.free[0].ID
}

// solve fills cost for every k up to n.
func (g *cpuGroup) solve(n int, w *weights) {
	limit := min(n, g.size)
	g.cost = make([]int64, 1, limit+1)
	if len(g.children) == 0 {
		g.cost = g.cost[:limit+1]
	}
	for _, child := range g.children {
		child.solve(n, w)
		g.merge(child, limit)
	}
	if g.level == levels {
		return
	}
	for k := 1; k < len(g.cost); k++ {
		g.cost[k] += w[g.level] + int64(g.size-k)
	}
}

// merge adds one child to the knapsack; equal costs stay with earlier
// children, which hold the lower numbers.
func (g *cpuGroup) merge(child *cpuGroup, limit int) {
	size := min(len(g.cost)-1+len(child.cost)-1, limit)
	next := make([]int64, size+1)
	choice := make([]int32, size+1)
	for k := range next {
		next[k] = math.MaxInt64
		for take := max(0, k-len(g.cost)+1); take <= min(k, len(child.cost)-1); take++ {
			if c := g.cost[k-take] + child.cost[take]; c < next[k] {
				next[k], choice[k] = c, int32(take)
			}
		}
	}
	g.cost, g.choice = next, append(g.choice, choice)
}

func (g *cpuGroup) take(k int, into []*CPU) []*CPU {
	if len(g.children) == 0 {
		return append(into, g.free[:k]...)
	}
	for i := len(g.children) - 1; i >= 0 && k > 0; i-- {
		n := int(g.choice[i][k])
		if n > 0 {
			into = g.children[i].take(n, into)
		}
		k -= n
	}
	return into
}
