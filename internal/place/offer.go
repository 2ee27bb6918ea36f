package place

import (
	"cmp"
	"fmt"
	"slices"

	"oscine.dev/oscine/internal/printable"
)

// offer is what the machine could give to one request, before choosing.
type offer struct {
	s     *State
	req   *Request
	free  []*CPU // that may be given exclusively, where the request is exclusive
	need0 nodeNeed
}

func (s *State) offerFor(req *Request) *offer { return s.offerOf(req, anyCPUs) }

// offerOf is an offer of some sort of CPUs only.
func (s *State) offerOf(req *Request, only cpuSort) *offer {
	o := &offer{s: s, req: req}
	if req.Exclusive {
		o.free = slices.DeleteFunc(s.exclusiveCPUs(req), func(c *CPU) bool { return !only.has(c) })
	}
	need := &o.need0
	need.amounts = []int64{req.MilliCPU, req.Memory}
	for _, h := range req.HugePages {
		need.amounts = append(need.amounts, h.Bytes)
	}
	need.supply = make([][]int64, len(s.nodes))
	kind := req.MemKind
	if kind == "" {
		kind = DRAM
	}
	for n := range s.nodes {
		row := make([]int64, len(need.amounts))
		if s.nodes[n].Kind == kind {
			row[1] = s.memory[n]
		}
		for i, h := range req.HugePages {
			row[2+i] = s.huge[n][h.Size] / h.Size * h.Size
		}
		need.supply[n] = row
	}
	o.supplyCPUs()
	o.neighbours()
	need.one = req.OneNode
	need.devices, need.crowd = make([]int, len(s.nodes)), make([]int, len(s.nodes))
	for _, p := range s.placed {
		if p.Request.work() == req.work() {
			for _, n := range s.nodesOf(p) {
				need.crowd[n]++
			}
		}
	}
	if len(req.Devices) == 0 {
		s.countFreeDevices(need.devices)
	}
	return o
}

func (o *offer) supplyCPUs() {
	s, need := o.s, &o.need0
	if o.req.Exclusive {
		for _, c := range o.free {
			need.supply[s.nodeAt[c.NUMA]][0] += 1000
		}
		return
	}
	for i := range s.cells {
		if c := &s.cells[i]; s.suits(c, o.req) {
			need.supply[c.node][0] += max(c.free(), 0)
		}
	}
}

// neighbours bars the nodes of placements to stay apart from and collects
// those to be near to.
func (o *offer) neighbours() {
	s, need := o.s, &o.need0
	need.barred = make([]bool, len(s.nodes))
	for name, p := range s.placed {
		if slices.Contains(o.req.Apart, name) || slices.Contains(o.req.Apart, p.Request.work()) || slices.Contains(p.Request.Apart, o.req.work()) {
			for _, n := range s.nodesOf(p) {
				need.barred[n] = true
			}
		}
	}
	for _, name := range o.req.Near {
		if p, ok := s.placed[name]; ok {
			need.near = append(need.near, s.nodesOf(p))
		}
	}
}

func (s *State) countFreeDevices(into []int) {
	for i := range s.machine.Devices {
		if n, ok := s.nodeAt[s.machine.Devices[i].NUMA]; ok && s.use[i].idle() {
			into[n]++
		}
	}
}

// exclusiveCPUs lists the CPUs that may be given exclusively: suitable, free,
// not the system's, and not needed to keep the word given to shared work. At
// least one CPU of the machine always stays shared.
func (s *State) exclusiveCPUs(req *Request) []*CPU {
	var free []*CPU
	pool := 0
	for i := range s.cells {
		if !s.cells[i].isolated {
			pool += len(s.cells[i].cpus) - s.cells[i].taken
		}
		if s.suits(&s.cells[i], req) {
			free = append(free, s.selected(req, s.spareCPUs(&s.cells[i]))...)
		}
	}
	common := func(c *CPU) bool { return !c.Isolated }
	if n := countFunc(free, common); n > 0 && n == pool {
		first := -1
		for i, c := range free {
			if common(c) && (first < 0 || c.ID < free[first].ID) {
				first = i
			}
		}
		free = slices.Delete(free, first, first+1)
	}
	if req.WholeCore {
		free = s.wholeCores(free)
	}
	return free
}

// spareCPUs leaves as many CPUs of a cell as its shared work needs, first those
// of cores that are broken already.
func (s *State) spareCPUs(c *cell) []*CPU {
	free := make([]*CPU, 0, len(c.cpus)-c.taken)
	kept := int64(0)
	for _, cpu := range c.cpus {
		if _, held := s.taken[cpu.ID]; held {
			continue
		}
		if cpu.Reserved {
			kept += 1000
			continue
		}
		free = append(free, cpu)
	}
	drop := int((max(c.shared-kept, 0) + 999) / 1000)
	if drop == 0 {
		return free
	}
	broken := map[coreKey]bool{}
	for _, cpu := range c.cpus {
		if _, held := s.taken[cpu.ID]; held || cpu.Reserved {
			broken[levelCore.of(cpu)] = true
		}
	}
	slices.SortStableFunc(free, func(a, b *CPU) int {
		if x, y := broken[levelCore.of(a)], broken[levelCore.of(b)]; x != y {
			if x {
				return -1
			}
			return 1
		}
		return a.ID - b.ID
	})
	return free[min(drop, len(free)):]
}

// wholeCores keeps the CPUs all of whose siblings are free too.
func (s *State) wholeCores(free []*CPU) []*CPU {
	siblings, have := map[coreKey]int{}, map[coreKey]int{}
	for i := range s.machine.CPUs {
		c := &s.machine.CPUs[i]
		siblings[levelCore.of(c)]++
		if c.Split {
			siblings[levelCore.of(c)]++ // one that is never ours
		}
	}
	for _, c := range free {
		have[levelCore.of(c)]++
	}
	return slices.DeleteFunc(free, func(c *CPU) bool {
		k := levelCore.of(c)
		return have[k] != siblings[k]
	})
}

func countFunc[T any](list []T, is func(T) bool) (n int) {
	for _, v := range list {
		if is(v) {
			n++
		}
	}
	return n
}

func (o *offer) freeOn(nodes []int) []*CPU {
	var free []*CPU
	for _, c := range o.free {
		if slices.Contains(nodes, o.s.nodeAt[c.NUMA]) {
			free = append(free, c)
		}
	}
	return free
}

// otherCPUs is a candidate like best on entirely other CPUs, for comparison;
// nil where too few are left.
func (o *offer) otherCPUs(best *candidate) *candidate {
	rest := slices.DeleteFunc(o.freeOn(best.nodes.nodes), func(c *CPU) bool {
		return slices.ContainsFunc(best.cpus, func(b *CPU) bool {
			return b == c || (o.req.WholeCore && levelCore.of(b) == levelCore.of(c))
		})
	})
	cpus := takeCPUs(rest, len(best.cpus))
	if cpus == nil {
		return nil
	}
	other := *best
	other.cpus = cpus
	return &other
}

// need is the demand on NUMA nodes once the devices are chosen.
func (o *offer) need(set deviceSet) *nodeNeed {
	need := o.need0
	for _, d := range set.all() {
		if n, ok := o.s.nodeAt[o.s.machine.Devices[d].NUMA]; ok && !slices.Contains(need.must, n) {
			need.must = append(slices.Clone(need.must), n)
		}
	}
	return &need
}

// placement writes down a candidate.
func (o *offer) placement(c *candidate) *Placement {
	s := o.s
	p := &Placement{Request: *o.req}
	if o.req.Exclusive {
		for _, cpu := range c.cpus {
			p.CPUs = append(p.CPUs, cpu.ID)
		}
		if o.req.WholeCore {
			p.Held = s.siblings(c.cpus)
		}
	} else {
		p.Shares = o.shares(c.nodes.nodes)
	}
	for i, amount := range o.need0.amounts[1:] {
		size := int64(0)
		if i > 0 {
			size = o.req.HugePages[i-1].Size
		}
		p.Memory = append(p.Memory, o.grants(c.nodes.nodes, 1+i, amount, size)...)
	}
	p.NUMANodes = o.memoryNodes(c)
	if !o.req.Exclusive {
		p.CPUs = s.sharedCPUs(p)
	}
	for r, pick := range c.devices.picks {
		for _, d := range pick {
			g := c.devices.grants[d]
			g.Request = o.req.Devices[r].Name
			p.Devices = append(p.Devices, g)
		}
	}
	return p
}

// siblings lists the other CPUs of the cores.
func (s *State) siblings(cpus []*CPU) []int {
	cores := map[coreKey]bool{}
	for _, c := range cpus {
		cores[levelCore.of(c)] = true
	}
	var ids []int
	for i := range s.machine.CPUs {
		c := &s.machine.CPUs[i]
		if cores[levelCore.of(c)] && !slices.Contains(cpus, c) {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// shares spreads the CPU time of a shared request over the cells of the nodes.
func (o *offer) shares(nodes []int) []CPUShare {
	var shares []CPUShare
	left := o.req.MilliCPU
	for i := range o.s.cells {
		c := &o.s.cells[i]
		if left <= 0 || !o.s.suits(c, o.req) || !slices.Contains(nodes, c.node) {
			continue
		}
		if milli := min(left, c.free()); milli > 0 {
			left -= milli
			shares = append(shares, CPUShare{Node: o.s.nodes[c.node].ID, Kind: c.kind, Features: c.features, Milli: milli})
		}
	}
	return shares
}

// grants takes an amount of resource i from the nodes, the richest first.
func (o *offer) grants(nodes []int, i int, amount, pageSize int64) []MemoryGrant {
	rich := slices.Clone(nodes)
	slices.SortStableFunc(rich, func(a, b int) int {
		return cmp.Compare(o.need0.supply[b][i], o.need0.supply[a][i])
	})
	var grants []MemoryGrant
	for _, n := range rich {
		if bytes := min(amount, o.need0.supply[n][i]); bytes > 0 {
			amount -= bytes
			grants = append(grants, MemoryGrant{Node: o.s.nodes[n].ID, PageSize: pageSize, Bytes: bytes})
		}
	}
	return grants
}

// memoryNodes are the nodes to bind memory to: the chosen ones that have any
// of the right kind, else the nearest that do.
func (o *offer) memoryNodes(c *candidate) []int {
	kind := o.req.MemKind
	if kind == "" {
		kind = DRAM
	}
	has := func(n int) bool { return o.s.nodes[n].Kind == kind && o.s.nodes[n].Memory > 0 }
	var ids []int
	for _, n := range c.nodes.nodes {
		if has(n) {
			ids = append(ids, o.s.nodes[n].ID)
		}
	}
	if len(ids) > 0 {
		return ids
	}
	best, bestDistance := -1, int64(0)
	for n := range o.s.nodes {
		var d int64
		for _, from := range c.nodes.nodes {
			d += o.s.distance[from][n]
		}
		if has(n) && (best < 0 || d < bestDistance) {
			best, bestDistance = n, d
		}
	}
	if best >= 0 {
		return []int{o.s.nodes[best].ID}
	}
	for _, n := range c.nodes.nodes {
		ids = append(ids, o.s.nodes[n].ID)
	}
	return ids
}

// short reports whether the whole machine cannot supply some amount.
func (o *offer) short() bool {
	for i, amount := range o.need0.amounts {
		for n := range o.need0.supply {
			if !o.need0.barred[n] {
				amount -= o.need0.supply[n][i]
			}
		}
		if amount > 0 {
			return true
		}
	}
	return false
}

// shortages reports every amount that the whole machine cannot supply.
func (o *offer) shortages() []Failure {
	var failures []Failure
	if !o.req.Exclusive && len(o.s.pool(o.req, nil)) == 0 {
		failures = append(failures, o.cpuShortage(0))
	}
	for i, amount := range o.need0.amounts {
		var have int64
		for n := range o.need0.supply {
			if !o.need0.barred[n] {
				have += o.need0.supply[n][i]
			}
		}
		if amount <= have {
			continue
		}
		switch i {
		case 0:
			if len(failures) == 0 {
				failures = append(failures, o.cpuShortage(have))
			}
		case 1:
			failures = append(failures, o.memoryShortage(have))
		default:
			size := o.req.HugePages[i-2].Size
			remedy := "set more such pages aside by spec.hugePages of the Machine file"
			if used := o.s.usedPages(size); used > 0 {
				remedy = fmt.Sprintf("end what uses %s of them outside of placement, %s", printable.Bytes(used), remedy)
			}
			if have > 0 {
				remedy += ", or ask for at most " + printable.Bytes(have)
			}
			failures = append(failures, Failure{
				Constraint: "huge pages of " + printable.Bytes(size),
				Problem:    fmt.Sprintf("%s are asked for, %s are free", printable.Bytes(amount), printable.Bytes(have)),
				Remedy:     remedy,
			})
		}
	}
	return failures
}
