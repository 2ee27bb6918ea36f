package place

import (
	"context"
	"encoding/binary"
	"maps"
	"slices"
)

// Bounds on the search for a gang.
const (
	maxGangEffort = maxEffort / 2
	maxGangTries  = 5_000 // places of single members that are tried
	maxGangWays   = 64    // places that are tried for one member, the best first
)

// gangSearch places the members of a gang by depth-first search: the member
// with the fewest places first, each place in turn, and back where one of the
// rest has none.
type gangSearch struct {
	s      *State
	effort *effort
	reqs   []Request
	given  []*Placement // by request
	tries  int
	failed map[string]bool // what is free, for members that do not fit into it; nil: not kept
}

func (s *State) searchGang(ctx context.Context, reqs []Request) *gangSearch {
	g := &gangSearch{s: s, effort: newEffort(ctx, maxGangEffort), reqs: reqs, given: make([]*Placement, len(reqs))}
	if !slices.ContainsFunc(reqs, func(r Request) bool { return len(r.Near)+len(r.Apart) > 0 }) {
		g.failed = map[string]bool{} // else it matters who holds what, too
	}
	return g
}

// sound reports whether there is anything to search for: every member is in
// order, and together they ask for no more CPUs and memory than are free.
func (g *gangSearch) sound() bool {
	names := map[string]bool{}
	var all Request
	for i := range g.reqs {
		r := &g.reqs[i]
		if _, placed := g.s.placed[r.Name]; placed || names[r.Name] || len(r.check()) > 0 {
			return false
		}
		names[r.Name] = true
		all.MilliCPU += r.MilliCPU
		if r.MemKind == "" || r.MemKind == DRAM {
			all.Memory += r.Memory
		}
	}
	return !g.s.offerFor(&all).short()
}

// place gives every one of the members a place, or changes nothing and reports
// false.
func (g *gangSearch) place(members []int) bool {
	if len(members) == 0 {
		return true
	}
	key := g.key(members)
	if g.failed[key] {
		return false
	}
	next, ways := g.hardest(members)
	rest := slices.DeleteFunc(slices.Clone(members), func(i int) bool { return i == next })
	for _, w := range ways {
		if g.tries++; g.tries > maxGangTries || g.effort.spent() {
			return false
		}
		g.s.commit(w.placement)
		if g.place(rest) {
			g.s.explain(w.placement, w.candidate, nil)
			g.given[next] = w.placement
			return true
		}
		g.s.Release(w.placement.Request.Name)
	}
	if g.failed != nil {
		g.failed[key] = true
	}
	return false
}

// hardest returns the member with the fewest places, and these.
func (g *gangSearch) hardest(members []int) (hardest int, fewest []way) {
	for n, i := range members {
		ways := g.s.ways(g.effort, &g.reqs[i])
		if n == 0 || len(ways) < len(fewest) {
			hardest, fewest = i, ways
		}
		if len(fewest) == 0 {
			break
		}
	}
	return hardest, fewest
}

// key names what is free and who has no place yet, so that two ways to the same
// dead end are walked once.
func (g *gangSearch) key(members []int) string {
	if g.failed == nil {
		return ""
	}
	var key []byte
	add := func(n int64) { key = binary.AppendVarint(key, n) }
	for _, i := range members {
		add(int64(i))
	}
	add(-1)
	for i := range g.s.cells {
		add(g.s.cells[i].shared)
	}
	for _, id := range slices.Sorted(maps.Keys(g.s.taken)) {
		add(int64(id))
	}
	add(-1)
	for n, free := range g.s.memory {
		add(free)
		for _, size := range slices.Sorted(maps.Keys(g.s.huge[n])) {
			add(g.s.huge[n][size])
		}
	}
	for i := range g.s.use {
		u := &g.s.use[i]
		add(int64(u.sharers))
		add(u.milli)
		add(u.memory)
		add(int64(u.slices))
	}
	return string(key)
}

// way is one place that a request may have.
type way struct {
	placement *Placement
	candidate *candidate
}

// ways lists the places that a request may have now, the best first, up to a
// bound. The request is in order and its selectors are evaluated.
func (s *State) ways(e *effort, req *Request) []way {
	var ways []way
	for _, narrow := range s.preferences(req) {
		ways = append(ways, s.waysOf(e, &narrow.req, narrow.only)...)
		for _, w := range ways {
			w.placement.Request = *req
		}
	}
	ways = append(ways, s.waysOf(e, req, anyCPUs)...)
	return ways[:min(len(ways), maxGangWays)]
}

func (s *State) waysOf(e *effort, req *Request, only cpuSort) []way {
	o := s.offerOf(req, only)
	if o.short() || (!req.Exclusive && len(s.pool(req, nil)) == 0) || !e.spend(8*(len(s.machine.CPUs)+len(s.use))) {
		return nil
	}
	sets := []deviceSet{{}}
	if len(req.Devices) > 0 {
		match, failures := s.matchDevices(req)
		if len(failures) > 0 {
			return nil
		}
		sets = s.everyDeviceSet(e, req, match)
	}
	var all []*candidate
	for _, set := range sets {
		for _, nodes := range s.widerSets(e, o.need(set), maxGangWays) {
			all = append(all, &candidate{devices: set, nodes: nodes})
		}
	}
	slices.SortStableFunc(all, func(a, b *candidate) int { return a.compare(b) })
	var ways []way
	for _, c := range all[:min(len(all), maxGangWays)] {
		if req.Exclusive {
			c.cpus = takeCPUs(o.freeOn(c.nodes.nodes), int(req.MilliCPU/1000))
		}
		ways = append(ways, way{o.placement(c), c})
	}
	return ways
}
