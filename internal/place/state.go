package place

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// State is a machine and what has been given out of it. It is not safe for
// use by several goroutines at once, except that any number may read one that
// nobody changes, and that each may change a copy of its own.
type State struct {
	machine  *Machine
	nodes    []NUMANode
	distance [][]int64
	fabric   *fabric
	cells    []cell
	memory   []int64           // free bytes by node
	huge     []map[int64]int64 // free bytes by node and page size
	use      []deviceUse       // by device

	// pagesInUse are the bytes of huge pages by node and size that were in use
	// from the start and that no placement accounts for; known are the
	// placements that cannot: those of which that has been asked before, or that
	// were made since.
	pagesInUse []map[int64]int64
	known      map[string]bool

	placed     map[string]*Placement
	taken      map[int]string // CPU → exclusive holder
	matches    *memo[matched]
	cpuMatches *memo[cpuMatch]

	// Where things are found by their names; fixed with the machine.
	nodeAt   map[int]int
	cellAt   map[int]int // by CPU
	deviceAt map[string]int

	// linkDemand says that sets of linked devices have been asked for, so that
	// single devices should leave the best joined ones alone.
	linkDemand bool

	hasIsolated bool // some CPUs are isolated, and some are not
}

// cell is the CPUs of one NUMA node that are alike: the unit in which shared
// CPU time is counted.
type cell struct {
	node     int // index
	isolated bool
	kind     string
	features string // joined, for comparison
	has      map[string]bool
	cpus     []*CPU
	taken    int   // exclusively given, or kept idle
	shared   int64 // thousandths promised to shared placements
}

func (c *cell) free() int64 { return int64(len(c.cpus)-c.taken)*1000 - c.shared }

// NewState returns a State with nothing given out. It refuses a machine whose
// description contradicts itself.
func NewState(m *Machine) (*State, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	s := &State{
		machine: m, nodes: m.nodes(), fabric: newFabric(m),
		use: make([]deviceUse, len(m.Devices)), placed: map[string]*Placement{}, known: map[string]bool{},
		taken: map[int]string{}, matches: &memo[matched]{}, cpuMatches: &memo[cpuMatch]{},
		nodeAt: map[int]int{}, cellAt: map[int]int{}, deviceAt: map[string]int{},
	}
	for i, n := range s.nodes {
		s.nodeAt[n.ID] = i
	}
	for i := range m.Devices {
		s.deviceAt[m.Devices[i].ID] = i
	}
	s.distance = square[int64](len(s.nodes))
	for i := range s.nodes {
		for j := range s.nodes {
			s.distance[i][j] = int64(distance(&s.nodes[i], &s.nodes[j]))
		}
		s.memory = append(s.memory, s.nodes[i].Memory)
		free, used := map[int64]int64{}, map[int64]int64{}
		for size, bytes := range s.nodes[i].HugePages {
			used[size] = min(s.nodes[i].PagesInUse[size], bytes)
			free[size] = bytes - used[size]
		}
		s.huge, s.pagesInUse = append(s.huge, free), append(s.pagesInUse, used)
	}
	s.buildCells()
	return s, nil
}

func (s *State) buildCells() {
	type key struct {
		node           int
		kind, features string
		isolated       bool
	}
	at := map[key]int{}
	for i := range s.machine.CPUs {
		c := &s.machine.CPUs[i]
		k := key{s.nodeAt[c.NUMA], c.Kind, strings.Join(c.Features, " "), c.Isolated}
		n, ok := at[k]
		if !ok {
			n = len(s.cells)
			at[k] = n
			has := make(map[string]bool, len(c.Features))
			for _, f := range c.Features {
				has[f] = true
			}
			s.cells = append(s.cells, cell{isolated: k.isolated, node: k.node, kind: k.kind, features: k.features, has: has})
		}
		s.cells[n].cpus = append(s.cells[n].cpus, c)
		s.cellAt[c.ID] = n
		s.hasIsolated = s.hasIsolated || c.Isolated
	}
}

// Machine returns the machine as it was described.
func (s *State) Machine() *Machine { return s.machine }

// Placements returns what has been given out, by name, CPUs of shared
// placements as they are now.
func (s *State) Placements() []Placement {
	names := slices.Sorted(maps.Keys(s.placed))
	all := make([]Placement, len(names))
	for i, n := range names {
		all[i], _ = s.Placement(n)
	}
	return all
}

// Placement returns what the named request holds now. The CPUs of a shared
// placement shrink and grow as others take and release exclusive ones.
func (s *State) Placement(name string) (Placement, bool) {
	p, ok := s.placed[name]
	if !ok {
		return Placement{}, false
	}
	now := *p
	if !p.Request.Exclusive {
		now.CPUs = s.sharedCPUs(p)
	}
	return now, true
}

// sharedCPUs are the CPUs on which the time of a shared placement is counted,
// or, where it is promised none, all that it may use.
func (s *State) sharedCPUs(p *Placement) []int {
	if len(p.Shares) == 0 {
		return s.pool(&p.Request, s.indexes(p.NUMANodes))
	}
	var ids []int
	for _, share := range p.Shares {
		for _, cpu := range s.cells[share.cell(s)].cpus {
			if _, held := s.taken[cpu.ID]; !held {
				ids = append(ids, cpu.ID)
			}
		}
	}
	slices.Sort(ids)
	return ids
}

// Pool returns the CPUs that nobody holds exclusively, where shared work and
// the system run.
func (s *State) Pool() []int { return s.pool(&Request{}, nil) }

// pool lists the shared CPUs that a request may use on the given nodes; all of
// its kind where those nodes have none.
func (s *State) pool(r *Request, nodes []int) []int {
	var near, all []int
	for i := range s.cells {
		c := &s.cells[i]
		if !s.suits(c, r) {
			continue
		}
		for _, cpu := range c.cpus {
			if _, held := s.taken[cpu.ID]; held {
				continue
			}
			all = append(all, cpu.ID)
			if slices.Contains(nodes, c.node) {
				near = append(near, cpu.ID)
			}
		}
	}
	if len(near) == 0 {
		near = all
	}
	slices.Sort(near)
	return near
}

func (c *cell) suits(r *Request) bool {
	if c.isolated && !r.Exclusive {
		return false
	}
	if r.CoreKind != "" && c.kind != r.CoreKind {
		return false
	}
	for _, f := range r.Features {
		if !c.has[f] {
			return false
		}
	}
	return true
}

// indexes are the places of the nodes with the IDs, ascending.
func (s *State) indexes(ids []int) []int {
	var at []int
	for _, id := range ids {
		if i, ok := s.nodeAt[id]; ok {
			at = append(at, i)
		}
	}
	slices.Sort(at)
	return slices.Compact(at)
}

// nodesOf are the places of the nodes on which a placement has CPUs or memory, ascending.
func (s *State) nodesOf(p *Placement) []int {
	return s.indexes(slices.Concat(p.homeNodes(), p.NUMANodes)) // other searches read both
}

// Release gives back what the named request holds and reports whether it held
// anything.
func (s *State) Release(name string) bool {
	p, ok := s.placed[name]
	if !ok {
		return false
	}
	s.account(p, -1)
	delete(s.placed, name)
	return true
}

// Adopt gives out what an earlier placement says, as after a restart, and
// refuses, changing nothing, where the machine no longer has it free.
func (s *State) Adopt(p Placement) error {
	if err := s.holds(&p); err != nil {
		return fmt.Errorf("placement of %q no longer fits: %w", p.Request.Name, err)
	}
	s.claimPages(&p)
	s.commit(&p)
	if err := s.overdrawn(); err != nil {
		s.Release(p.Request.Name)
		return fmt.Errorf("placement of %q no longer fits: %w", p.Request.Name, err)
	}
	return nil
}

func (s *State) commit(p *Placement) {
	s.account(p, 1)
	s.known[p.Request.Name] = true
	s.placed[p.Request.Name] = p
	if countDevices(&p.Request) > 1 {
		s.linkDemand = true
	}
}

func countDevices(r *Request) int {
	n := 0
	for i := range r.Devices {
		n += r.Devices[i].count()
	}
	return n
}

// account adds (sign 1) or takes back (-1) everything that p holds.
func (s *State) account(p *Placement, sign int) {
	for _, share := range p.Shares {
		s.cells[share.cell(s)].shared += int64(sign) * share.Milli
	}
	for _, id := range slices.Concat(p.exclusive(), p.Held) {
		if sign > 0 {
			s.taken[id] = p.Request.Name
		} else {
			delete(s.taken, id)
		}
		s.cells[s.cellAt[id]].taken += sign
	}
	for _, m := range p.Memory {
		n := s.nodeAt[m.Node]
		if m.PageSize == 0 {
			s.memory[n] -= int64(sign) * m.Bytes
		} else {
			s.huge[n][m.PageSize] -= int64(sign) * m.Bytes
		}
	}
	for _, g := range p.Devices {
		if d := s.deviceIndex(g.ID); d >= 0 {
			s.use[d].give(&s.machine.Devices[d], g, p.Request.Class, sign)
		}
	}
}

// deviceIndex is the place of a device, or -1.
func (s *State) deviceIndex(id string) int {
	if i, ok := s.deviceAt[id]; ok {
		return i
	}
	return -1
}

// Clone copies what is given out, for trying changes; the machine is shared. See
// Merge.
func (s *State) Clone() *State {
	c := *s
	c.cells = slices.Clone(s.cells)
	c.memory = slices.Clone(s.memory)
	c.huge, c.pagesInUse = make([]map[int64]int64, len(s.huge)), make([]map[int64]int64, len(s.huge))
	for i := range s.huge {
		c.huge[i], c.pagesInUse[i] = maps.Clone(s.huge[i]), maps.Clone(s.pagesInUse[i])
	}
	c.known = maps.Clone(s.known)
	c.use = slices.Clone(s.use)
	c.placed = maps.Clone(s.placed)
	c.taken = maps.Clone(s.taken)
	return &c
}
