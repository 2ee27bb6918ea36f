package place

import (
	"fmt"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/printable"
)

// Placement is what a request was given.
type Placement struct {
	Request   Request       `json:"request"`
	CPUs      []int         `json:"cpus,omitempty"`      // exclusive ones, or the shared ones it may run on
	Held      []int         `json:"held,omitempty"`      // SMT siblings of exclusive CPUs, kept idle
	NUMANodes []int         `json:"numaNodes,omitempty"` // IDs, for cpuset.mems
	Memory    []MemoryGrant `json:"memory,omitempty"`
	Shares    []CPUShare    `json:"shares,omitempty"` // of a shared placement
	Devices   []DeviceGrant `json:"devices,omitempty"`
	Reason    string        `json:"reason,omitempty"`   // one sentence for a person
	RunnerUp  *Alternative  `json:"runnerUp,omitempty"` // the next best choice, if there was one
}

// MemoryGrant is memory on one NUMA node.
type MemoryGrant struct {
	Node     int   `json:"node"`
	PageSize int64 `json:"pageSize,omitempty"` // 0: ordinary memory
	Bytes    int64 `json:"bytes,omitempty"`
}

// CPUShare is CPU time counted on the alike CPUs of one NUMA node.
type CPUShare struct {
	Node     int    `json:"node"`
	Kind     string `json:"kind,omitempty"`
	Features string `json:"features,omitempty"`
	Milli    int64  `json:"milli,omitempty"`
}

func (c CPUShare) cell(s *State) int {
	for i := range s.cells {
		k := &s.cells[i]
		if s.nodes[k.node].ID == c.Node && k.kind == c.Kind && k.features == c.Features {
			return i
		}
	}
	return -1
}

// DeviceGrant is one device, or a part of it.
type DeviceGrant struct {
	Request  string   `json:"request,omitempty"` // name of the DeviceRequest
	ID       string   `json:"id,omitempty"`
	Fraction Fraction `json:"fraction,omitzero"` // that was asked for

	Sharing     Sharing `json:"sharing,omitempty"`
	Profile     string  `json:"profile,omitempty"`     // of a partition
	Start       int     `json:"start,omitempty"`       // its first slice
	Milli       int64   `json:"milli,omitempty"`       // thousandths of the compute that are counted for it
	Memory      int64   `json:"memory,omitempty"`      // bytes of the device's memory
	LowPriority bool    `json:"lowPriority,omitempty"` // by MPS, behind others
	Why         string  `json:"why,omitempty"`         // the decision in words
}

// Alternative is a choice that was possible but worse.
type Alternative struct {
	CPUs      []int    `json:"cpus,omitempty"`
	NUMANodes []int    `json:"numaNodes,omitempty"`
	Devices   []string `json:"devices,omitempty"`
	Why       string   `json:"why,omitempty"` // why it came second
}

// homeNodes are the IDs of the nodes whose CPUs a shared placement runs on.
func (p *Placement) homeNodes() []int {
	if len(p.Shares) == 0 {
		return p.NUMANodes
	}
	var ids []int
	for _, share := range p.Shares {
		ids = append(ids, share.Node)
	}
	return ids
}

func (p *Placement) exclusive() []int {
	if p.Request.Exclusive {
		return p.CPUs
	}
	return nil
}

// holds reports what of p the machine no longer has, or holds for another. Sums
// are left to overdrawn.
func (s *State) holds(p *Placement) error {
	if _, ok := s.placed[p.Request.Name]; ok {
		return fmt.Errorf("the name is in use")
	}
	given := map[int]bool{}
	for _, id := range slices.Concat(p.exclusive(), p.Held) {
		_, known := s.cellAt[id]
		switch holder, held := s.taken[id]; {
		case !known:
			return fmt.Errorf("CPU %d is gone", id)
		case held || given[id]:
			return fmt.Errorf("CPU %d belongs to %q", id, holder)
		}
		given[id] = true
	}
	for _, share := range p.Shares {
		if share.cell(s) < 0 || share.Milli < 0 {
			return fmt.Errorf("the CPUs of NUMA node %d are gone", share.Node)
		}
	}
	for _, m := range p.Memory {
		n, known := s.nodeAt[m.Node]
		if !known || m.Bytes < 0 {
			return fmt.Errorf("NUMA node %d is gone", m.Node)
		}
		if _, ok := s.huge[n][m.PageSize]; !ok && m.PageSize != 0 {
			return fmt.Errorf("NUMA node %d has no pages of %s", m.Node, printable.Bytes(m.PageSize))
		}
	}
	return s.holdsDevices(p)
}

func (s *State) holdsDevices(p *Placement) error {
	use := map[int]deviceUse{} // with what p itself takes
	for i := range p.Devices {
		g := &p.Devices[i]
		d := s.deviceIndex(g.ID)
		if d < 0 {
			return fmt.Errorf("device %s is gone", g.ID)
		}
		if g.Sharing == "" && g.Fraction.Whole() { // stored by a release that did not name it
			g.Sharing, g.Milli, g.Memory = Exclusive, 1000, s.machine.Devices[d].Memory
		}
		u, ok := use[d]
		if !ok {
			u = s.use[d]
		}
		if !u.holds(&s.machine.Devices[d], g, p.Request.Class) {
			return fmt.Errorf("device %s is in use", g.ID)
		}
		u.give(&s.machine.Devices[d], *g, p.Request.Class, 1)
		use[d] = u
	}
	return nil
}

// overdrawn reports a resource of which more is given out than there is.
func (s *State) overdrawn() error {
	for i := range s.cells {
		if s.cells[i].free() < 0 {
			return fmt.Errorf("the CPUs of NUMA node %d are promised to others", s.nodes[s.cells[i].node].ID)
		}
	}
	for n, free := range s.memory {
		if free < 0 {
			return fmt.Errorf("NUMA node %d lacks %s of memory", s.nodes[n].ID, printable.Bytes(-free))
		}
		for size, free := range s.huge[n] {
			if free < 0 {
				return fmt.Errorf("NUMA node %d lacks %s in pages of %s", s.nodes[n].ID, printable.Bytes(-free), printable.Bytes(size))
			}
		}
	}
	return nil
}

// FormatCPUs writes CPU numbers as the kernel lists them, such as 0-3,8.
func FormatCPUs(ids []int) string {
	sorted := slices.Sorted(slices.Values(ids))
	var parts []string
	for i := 0; i < len(sorted); {
		j := i
		for j+1 < len(sorted) && sorted[j+1] == sorted[j]+1 {
			j++
		}
		if i == j {
			parts = append(parts, fmt.Sprint(sorted[i]))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", sorted[i], sorted[j]))
		}
		i = j + 1
	}
	return strings.Join(parts, ",")
}
