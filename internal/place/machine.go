package place

import (
	"fmt"
	"slices"
)

// Bounds on a machine, so that a hostile description costs little.
const (
	maxCPUs    = 8192 // the most a Linux kernel is built for
	maxNUMA    = 1024
	maxDevices = 1024
	maxLinks   = 1 << 16
)

// MaxProfiles bounds the profiles of a device.
const MaxProfiles = 32

// Machine is what one node has to give out. Offline CPUs and lost devices are
// simply not listed.
type Machine struct {
	Name    string
	CPUs    []CPU
	NUMA    []NUMANode // none: one node 0 with all CPUs and no memory to give
	Devices []Device
	Links   []Link
}

// CPU is one online logical CPU with its place in the machine.
type CPU struct {
	ID       int    // the kernel's number
	Core     int    // SMT siblings share it; unique within a package
	Cache    int    // last-level cache; unique in the machine; negative: nobody knows
	NUMA     int    // ID of its NUMANode
	Package  int    // socket; negative: nobody knows
	Kind     string // "performance", "efficiency" or "" where all are alike
	Features []string
	Reserved bool // never given exclusively: the system runs here
	Isolated bool // the kernel moves no work here (isolcpus=, nohz_full=): only given exclusively
	Split    bool // work of others runs on its core, which nobody can have whole
}

// MemoryKind says what a NUMA node's memory is made of.
type MemoryKind string

// The kinds of memory. The empty kind in a request means DRAM.
const (
	DRAM MemoryKind = "dram"
	HBM  MemoryKind = "hbm"
	CXL  MemoryKind = "cxl"
	PMEM MemoryKind = "pmem"
	// OtherMemory is of unknown kind, or set aside for a special
	// purpose. It is given to nobody.
	OtherMemory MemoryKind = "other"
)

// NUMANode is one memory domain.
type NUMANode struct {
	ID        int
	Kind      MemoryKind      // empty: DRAM
	Memory    int64           // bytes that may be given out
	HugePages map[int64]int64 // page size in bytes → bytes of such pages
	// PagesInUse are the bytes of them that somebody uses already: others, or
	// placements that are adopted.
	PagesInUse map[int64]int64
	Distance   map[int]int // ACPI SLIT value to other nodes by ID; absent: 20, itself: 10
}

// Device is an accelerator, network card, disk or anything else that is given
// out whole or in fractions.
type Device struct {
	ID         string           // unique on the machine, such as a PCI address
	Driver     string           // DRA driver name, such as gpu.nvidia.com
	NUMA       int              // ID of the NUMA node it hangs on; -1: nobody knows
	Path       []string         // PCIe root and bridges above it, root first
	Attributes map[string]any   // "domain/name" → bool, int64 or string
	Capacity   map[string]int64 // "domain/name" → amount, memory in bytes
	Memory     int64            // own memory in bytes, 0: none or unknown
	Shares     int              // most workloads at once by MPS or time slices; 0 or 1: whole only
	MPS        bool             // shared by MPS rather than time slices
	Profiles   []Profile        // partitions it can be cut into (MIG); none: it cannot
}

// Profile is a kind of hardware partition of a device. Positions are counted
// in memory slices as NVIDIA's MIG does.
type Profile struct {
	Name   string // such as 1g.10gb
	Slices int    // consecutive slices it takes
	Starts []int  // where it may begin
	Memory int64  // bytes
	// Compute is its share of the processors, in slices of them, of which the
	// largest profile has all; 0: as many as Slices.
	Compute   int
	Instances int // most at once; 0: as many as have a place
}

// Link joins two devices directly, such as NVLink or xGMI.
type Link struct {
	A, B  string // device IDs; one entry serves both directions
	Kind  string // nvlink, xgmi, …
	Count int    // parallel links
}

// check refuses descriptions that contradict themselves.
func (m *Machine) check() error {
	switch {
	case len(m.CPUs) > maxCPUs:
		return fmt.Errorf("machine %q: %d CPUs, at most %d are understood", m.Name, len(m.CPUs), maxCPUs)
	case len(m.NUMA) > maxNUMA:
		return fmt.Errorf("machine %q: %d NUMA nodes, at most %d are understood", m.Name, len(m.NUMA), maxNUMA)
	case len(m.Devices) > maxDevices:
		return fmt.Errorf("machine %q: %d devices, at most %d are understood", m.Name, len(m.Devices), maxDevices)
	case len(m.Links) > maxLinks:
		return fmt.Errorf("machine %q: %d links, at most %d are understood", m.Name, len(m.Links), maxLinks)
	}
	cpus := map[int]bool{}
	for _, c := range m.CPUs {
		if c.ID < 0 || cpus[c.ID] {
			return fmt.Errorf("machine %q: CPU %d is negative or listed twice", m.Name, c.ID)
		}
		cpus[c.ID] = true
	}
	nodes := map[int]bool{}
	for _, n := range m.NUMA {
		if n.ID < 0 || nodes[n.ID] {
			return fmt.Errorf("machine %q: NUMA node %d is negative or listed twice", m.Name, n.ID)
		}
		nodes[n.ID] = true
		if n.Memory < 0 {
			return fmt.Errorf("machine %q: NUMA node %d has %d bytes", m.Name, n.ID, n.Memory)
		}
		for size, bytes := range n.HugePages {
			if size <= 0 || bytes < 0 {
				return fmt.Errorf("machine %q: NUMA node %d has %d bytes of %d-byte pages", m.Name, n.ID, bytes, size)
			}
		}
	}
	devices := map[string]bool{}
	for _, d := range m.Devices {
		if d.ID == "" || devices[d.ID] {
			return fmt.Errorf("machine %q: device %q is unnamed or listed twice", m.Name, d.ID)
		}
		devices[d.ID] = true
		if len(d.Profiles) > MaxProfiles {
			return fmt.Errorf("machine %q: device %q has %d profiles, at most %d are understood", m.Name, d.ID, len(d.Profiles), MaxProfiles)
		}
		for _, p := range d.Profiles {
			if err := p.check(); err != nil {
				return fmt.Errorf("machine %q: device %q: %w", m.Name, d.ID, err)
			}
		}
	}
	return nil
}

func (p Profile) check() error {
	bad := p.Compute < 0 || p.Instances < 0 || p.Slices < 1 || p.Slices > 64 || len(p.Starts) == 0 || p.Memory < 0
	for _, s := range p.Starts {
		bad = bad || s < 0 || s+p.Slices > 64
	}
	if bad {
		return fmt.Errorf("profile %q: %d slices at %v do not fit 64 slices", p.Name, p.Slices, p.Starts)
	}
	return nil
}

// nodes returns the machine's NUMA nodes in order of ID, with one made up for
// every node that only a CPU names, so that a machine without NUMA is a
// machine with one node.
func (m *Machine) nodes() []NUMANode {
	nodes := slices.Clone(m.NUMA)
	known := map[int]bool{}
	for _, n := range nodes {
		known[n.ID] = true
	}
	for _, c := range m.CPUs {
		if !known[c.NUMA] {
			known[c.NUMA] = true
			nodes = append(nodes, NUMANode{ID: c.NUMA})
		}
	}
	for i := range nodes {
		if nodes[i].Kind == "" {
			nodes[i].Kind = DRAM
		}
	}
	slices.SortFunc(nodes, func(a, b NUMANode) int { return a.ID - b.ID })
	return nodes
}

const (
	distanceSelf   = 10 // SLIT: a node to itself
	distanceRemote = 20 // SLIT: the usual value where firmware gives none
)

func distance(a, b *NUMANode) int {
	if a.ID == b.ID {
		return distanceSelf
	}
	if d, ok := a.Distance[b.ID]; ok && d > 0 {
		return d
	}
	return distanceRemote
}
