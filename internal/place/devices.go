package place

import (
	"cmp"
	"slices"
)

// Bounds on the search for device sets. Where there are at most maxSets answers
// to all device requests together, every one is looked at; else every answer to
// each request that has so few; beyond, sets are grown greedily from every
// device and improved by swaps.
const (
	maxSets       = 30_000
	maxComplete   = 20_000 // answers to all requests that are looked at beyond
	maxCandidates = 64     // sets kept for the choice of cores and memory
)

// deviceSet is a possible answer to all device requests.
type deviceSet struct {
	picks  [][]int             // by request
	crowd  int                 // other instances of the work on them
	score  int64               // of the links between all of them
	loss   int64               // what the choice takes from others; smaller is better
	grants map[int]DeviceGrant // by device
}

func (s *deviceSet) all() []int { return slices.Concat(s.picks...) }

// deviceSearch finds sets for the requests of one placement.
type deviceSearch struct {
	s        *State
	req      *Request
	effort   *effort
	match    [][]int              // free devices by request
	degree   []int64              // links of each free device to the other free ones
	crowd    []int                // other instances of the same work on each device
	loss     [][]int64            // lossOf by request and device, -1: not known yet
	exact    bool                 // look at every answer to all requests
	every    bool                 // keep all sets rather than the best for each set of NUMA nodes
	complete int                  // answers looked at
	sets     map[string]deviceSet // best by NUMA signature
}

// deviceSets returns the best sets, at most one for each combination of NUMA
// nodes, all within a hundredth of the best link score.
func (s *State) deviceSets(e *effort, req *Request, match [][]int) []deviceSet {
	found := s.searchDevices(e, req, match, false)
	var best int64
	for _, set := range found {
		best = max(best, set.score)
	}
	return slices.DeleteFunc(found, func(set deviceSet) bool { return set.score*100 < best*99 })
}

// everyDeviceSet returns the best sets whatever their NUMA nodes and score.
func (s *State) everyDeviceSet(e *effort, req *Request, match [][]int) []deviceSet {
	return s.searchDevices(e, req, match, true)
}

func (s *State) searchDevices(e *effort, req *Request, match [][]int, every bool) []deviceSet {
	ds := &deviceSearch{s: s, req: req, effort: e, match: match, every: every, sets: map[string]deviceSet{}}
	ds.degree, ds.crowd = ds.degrees(), s.crowd(req)
	ds.exact = ds.answers() <= maxSets
	ds.loss = make([][]int64, len(req.Devices))
	for r := range ds.loss {
		ds.loss[r] = slices.Repeat([]int64{-1}, len(s.machine.Devices))
	}
	order := make([]int, len(req.Devices))
	for i := range order {
		order[i] = i
	}
	// The hardest request first: the one with the fewest ways to satisfy it.
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(len(match[a])-req.Devices[a].count(), len(match[b])-req.Devices[b].count())
	})
	ds.extend(order, deviceSet{picks: make([][]int, len(req.Devices))}, map[int]bool{})
	found := make([]deviceSet, 0, len(ds.sets))
	for _, set := range ds.sets {
		found = append(found, set)
	}
	slices.SortFunc(found, compareSets)
	found = found[:min(len(found), maxCandidates)]
	for i := range found {
		found[i].grants = ds.grants(&found[i])
	}
	return found
}

func compareSets(a, b deviceSet) int {
	return cmp.Or(cmp.Compare(a.crowd, b.crowd), cmp.Compare(b.score, a.score), cmp.Compare(a.loss, b.loss), slices.Compare(a.all(), b.all()))
}

func (d *DeviceRequest) count() int { return max(d.Count, 1) }

// answers is a bound on the answers to all requests, saturating above maxSets.
func (ds *deviceSearch) answers() int {
	n := 1
	for r := range ds.req.Devices {
		if n *= combinations(len(ds.match[r]), ds.req.Devices[r].count()); n > maxSets {
			return maxSets + 1
		}
	}
	return n
}

// degrees rates how well each free device is joined to the other free ones:
// what a choice would take from those who need links.
func (ds *deviceSearch) degrees() []int64 {
	degree := make([]int64, len(ds.s.machine.Devices))
	seen := map[int]bool{}
	var free []int
	for _, m := range ds.match {
		for _, d := range m {
			if !seen[d] {
				seen[d] = true
				free = append(free, d)
			}
		}
	}
	for _, a := range free {
		for _, b := range free {
			degree[a] += int64(ds.s.fabric.score[a][b])
		}
	}
	return degree
}

// extend answers the next request of order in every good way.
func (ds *deviceSearch) extend(order []int, set deviceSet, used map[int]bool) {
	if len(order) == 0 {
		ds.keep(set)
		return
	}
	r := order[0]
	var open []int
	for _, d := range ds.match[r] {
		if !used[d] && ds.linked(r, d, set) {
			open = append(open, d)
		}
	}
	for _, pick := range ds.picks(r, open, set) {
		next := deviceSet{picks: slices.Clone(set.picks)}
		next.picks[r] = pick
		for _, d := range pick {
			used[d] = true
		}
		ds.extend(order[1:], next, used)
		for _, d := range pick {
			delete(used, d)
		}
		if !ds.exact && ds.complete > maxComplete || !ds.effort.spend(len(open)) {
			return
		}
	}
}

// linked checks a device against those already picked.
func (ds *deviceSearch) linked(r int, d int, set deviceSet) bool {
	for _, l := range ds.req.Links {
		if !l.covers(ds.req, r) {
			continue
		}
		for other, pick := range set.picks {
			if !l.covers(ds.req, other) {
				continue
			}
			for _, p := range pick {
				if !ds.s.fabric.joined(ds.s.machine, l.By, p, d) {
					return false
				}
			}
		}
	}
	return true
}

func (l *LinkRequest) covers(req *Request, r int) bool {
	return len(l.Between) == 0 || slices.Contains(l.Between, req.Devices[r].Name)
}

// pairOK checks two devices of one request against its links.
func (ds *deviceSearch) pairOK(r, a, b int) bool {
	for _, l := range ds.req.Links {
		if l.covers(ds.req, r) && !ds.s.fabric.joined(ds.s.machine, l.By, a, b) {
			return false
		}
	}
	return true
}

// keep scores a complete set and remembers the best for its NUMA nodes.
func (ds *deviceSearch) keep(set deviceSet) {
	ds.complete++
	for r, pick := range set.picks {
		slices.Sort(pick)
		for _, d := range pick {
			set.loss += ds.lossOf(r, d)
		}
	}
	all := set.all()
	for _, d := range all {
		set.crowd += ds.crowd[d]
	}
	set.score = ds.s.fabric.setScore(all)
	if len(all) > 1 || ds.s.linkDemand {
		for _, d := range all {
			set.loss += ds.degree[d]
		}
	}
	key := ds.signature(all)
	if old, ok := ds.sets[key]; !ok || compareSets(set, old) < 0 {
		ds.sets[key] = set
	}
}

// crowd counts the other instances of the same work on each device.
func (s *State) crowd(req *Request) []int {
	crowd := make([]int, len(s.machine.Devices))
	for _, p := range s.placed {
		if p.Request.work() != req.work() {
			continue
		}
		for _, g := range p.Devices {
			if d, ok := s.deviceAt[g.ID]; ok {
				crowd[d]++
			}
		}
	}
	return crowd
}

// grants says what each request gets of the devices of its pick.
func (ds *deviceSearch) grants(set *deviceSet) map[int]DeviceGrant {
	grants := map[int]DeviceGrant{}
	for r, pick := range set.picks {
		for _, d := range pick {
			grants[d], _, _ = ds.s.use[d].grant(&ds.s.machine.Devices[d], ds.req.deviceAsk(r))
		}
	}
	return grants
}

// signature names the NUMA nodes of a set of devices, or the devices.
func (ds *deviceSearch) signature(set []int) string {
	nodes := make([]int, 0, len(set))
	for _, d := range set {
		if ds.every {
			nodes = append(nodes, d)
		} else {
			nodes = append(nodes, ds.s.machine.Devices[d].NUMA)
		}
	}
	slices.Sort(nodes)
	key := make([]byte, 0, 2*len(nodes))
	for _, n := range slices.Compact(nodes) {
		key = append(key, byte(n), byte(n>>8))
	}
	return string(key)
}
