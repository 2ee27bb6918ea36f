package hardware

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Link is a connection between two devices beside the PCI tree.
type Link struct {
	A string `json:"a"` // an accelerator's ID, a PCI address, or a node (node0)
	B string `json:"b"`
	// Kind is nvlink, xgmi, c2c or what a driver names.
	Kind  string `json:"kind"`
	Count int    `json:"count"` // parallel links
	// BytesPerSecond is of all of them together in one direction, 0 where
	// unknown.
	BytesPerSecond float64 `json:"bytesPerSecond,omitempty"`
	Source         string  `json:"source,omitempty"` // the file that describes it
}

// Pair is what a driver reports about the path between two devices over PCI.
type Pair struct {
	A string `json:"a"` // an accelerator's ID
	B string `json:"b"`
	// Proximity is PIX, PXB, PHB, NODE or SYS.
	Proximity string `json:"proximity"`
	// PeerToPeer says that one reads the other's memory.
	PeerToPeer bool `json:"peerToPeer,omitempty"`
}

// ErrUnknown says that a name is none of the machine's devices.
var ErrUnknown = errors.New("no such device (see oscine hardware)")

// Proximity tells how two devices are joined, nearest first.
type Proximity int

// The proximities, in the words of nvidia-smi topo.
const (
	Same     Proximity = iota // one and the same device
	Direct                    // a link of their own: NVLink, xGMI
	Switch                    // one PCIe switch (PIX)
	Switches                  // several PCIe switches, no root (PXB)
	Root                      // one PCIe root complex (PHB)
	InNode                    // root complexes of one NUMA node (NODE)
	Across                    // across NUMA nodes (SYS)
)

// String is the short name of nvidia-smi topo's legend.
func (p Proximity) String() string {
	names := [...]string{"SELF", "LINK", "PIX", "PXB", "PHB", "NODE", "SYS"}
	if p < 0 || int(p) >= len(names) {
		return "?"
	}
	return names[p]
}

// Meaning says a proximity in words.
func (p Proximity) Meaning() string {
	meanings := [...]string{"the same device", "a link of their own", "one PCIe switch", "several PCIe switches", "one PCIe root complex",
		"one NUMA node", "different NUMA nodes"}
	if p < 0 || int(p) >= len(meanings) {
		return "unknown"
	}
	return meanings[p]
}

// Path is the way between two devices.
type Path struct {
	A, B      string
	Proximity Proximity
	// Over lists what lies between, in order: links, bridges, nodes.
	Over []string
	// BytesPerSecond is the narrowest link's, in one direction; 0 unknown.
	BytesPerSecond float64
	// Distance is the SLIT distance between the NUMA nodes, 0 unknown.
	Distance int
}

// endpoint is one end of a path.
type endpoint struct {
	name string
	pci  *PCIDevice
	node int
	link string // the name of what its links end at: of a CPU, its node
}

// Between tells how far device a is from device b: over what, at which
// bandwidth. Devices are named by ID (gpu0), interface (eth0), disk (nvme0n1),
// PCI address, node (node1) or CPU (cpu3). It returns ErrUnknown for other names.
func (m *Machine) Between(a, b string) (Path, error) {
	x, err := m.endpoint(a)
	if err != nil {
		return Path{}, err
	}
	y, err := m.endpoint(b)
	if err != nil {
		return Path{}, err
	}
	p := Path{A: x.name, B: y.name, Proximity: Across}
	if x.name == y.name || x.pci != nil && x.pci == y.pci {
		p.Proximity = Same
		return p, nil
	}
	if link := m.linkBetween(x.link, y.link); link != nil && x.link != y.link {
		p.Proximity, p.BytesPerSecond = Direct, link.BytesPerSecond
		p.Over = []string{strconv.Itoa(max(1, link.Count)) + " × " + link.Kind}
		return p, nil
	}
	m.tree(&p, x, y)
	m.told(&p)
	return p, nil
}

// told corrects a path by what a driver knows: a virtual machine may show no
// common switch where there is one.
func (m *Machine) told(p *Path) {
	for _, pair := range m.Pairs {
		if pair.A == p.A && pair.B == p.B || pair.A == p.B && pair.B == p.A {
			for near := Switch; near < p.Proximity; near++ {
				if near.String() == pair.Proximity {
					p.Proximity, p.Over = near, []string{"hidden by the machine, reported by the driver"}
				}
			}
		}
	}
}

func (m *Machine) endpoint(name string) (endpoint, error) {
	if a := m.Accelerator(name); a != nil {
		return endpoint{a.ID, m.Device(a.Function()), a.Node, a.ID}, nil
	}
	for _, i := range m.Interfaces {
		if i.Name == name || i.RDMA == name && name != "" {
			return endpoint{i.Name, m.Device(i.Address), i.Node, i.Name}, nil
		}
	}
	for _, d := range m.Disks {
		if d.Name == name {
			return endpoint{d.Name, m.Device(d.Address), d.Node, d.Name}, nil
		}
	}
	if address, ok := pciAddress(name); ok {
		if d := m.Device(address); d != nil {
			return endpoint{address, d, d.Node, address}, nil
		}
	}
	if digits, ok := strings.CutPrefix(name, "node"); ok {
		for _, n := range m.Nodes {
			if strconv.Itoa(n.ID) == digits {
				return endpoint{name, nil, n.ID, name}, nil
			}
		}
	}
	if digits, ok := strings.CutPrefix(name, "cpu"); ok {
		for _, c := range m.CPUs {
			if strconv.Itoa(c.ID) == digits {
				return endpoint{name, nil, c.Node, "node" + strconv.Itoa(c.Node)}, nil
			}
		}
	}
	return endpoint{}, fmt.Errorf("%q: %w", clip(name), ErrUnknown)
}

func (m *Machine) linkBetween(a, b string) *Link {
	for i, l := range m.Links {
		if l.A == a && l.B == b || l.A == b && l.B == a {
			return &m.Links[i]
		}
	}
	return m.viaSwitch(a, b)
}

// viaSwitch finds a way through an NVSwitch that both devices are linked to.
func (m *Machine) viaSwitch(a, b string) *Link {
	up := func(name string) map[string]Link {
		found := map[string]Link{}
		for _, l := range m.Links {
			if l.A == name {
				found[l.B] = l
			} else if l.B == name {
				found[l.A] = l
			}
		}
		return found
	}
	from, to := up(a), up(b)
	through := Link{A: a, B: b}
	for name, l := range from {
		other, ok := to[name]
		hub := m.Accelerator(name)
		if !ok || hub == nil || hub.Kind != "switch" {
			continue
		}
		through.Kind = l.Kind + " by switch"
		through.Count += min(l.Count, other.Count)
		through.BytesPerSecond += math.Min(l.BytesPerSecond, other.BytesPerSecond)
	}
	if through.Count == 0 {
		return nil
	}
	return &through
}

// tree fills in the way through the PCI tree and the NUMA nodes.
func (m *Machine) tree(p *Path, x, y endpoint) {
	up, down := m.Bridges(x.pci), m.Bridges(y.pci)
	meet := slices.IndexFunc(up, func(d *PCIDevice) bool { return slices.Contains(down, d) })
	switch {
	case meet >= 0 && x.pci != nil && y.pci != nil:
		other := slices.Index(down, up[meet])
		p.Proximity = Switch
		if meet > 1 || other > 1 {
			p.Proximity = Switches
		}
		if up[meet].Parent == "" && meet > 0 && other > 0 && m.isRootPort(up[meet]) && (meet > 2 || other > 2) {
			p.Proximity = Switches
		}
		up, down = up[:meet+1], down[:other]
	case x.pci != nil && y.pci != nil && x.pci.Root != "" && x.pci.Root == y.pci.Root:
		p.Proximity = Root
	case x.node >= 0 && x.node == y.node:
		p.Proximity = InNode
		p.Distance = 10
	}
	for _, d := range up {
		p.Over = append(p.Over, d.Address)
	}
	if p.Proximity >= Root {
		p.Over = append(p.Over, m.middle(p, x, y)...)
	}
	for _, d := range slices.Backward(down) {
		p.Over = append(p.Over, d.Address)
	}
	p.BytesPerSecond = narrowest(x.pci, y.pci, up, down, p.Proximity)
}

// middle names what lies between two roots.
func (m *Machine) middle(p *Path, x, y endpoint) []string {
	switch {
	case p.Proximity == Root:
		return []string{x.pci.Root}
	case x.node < 0 || y.node < 0:
		return []string{"system"}
	case x.node == y.node:
		return []string{"node" + strconv.Itoa(x.node)}
	}
	for i, n := range m.Nodes {
		for j, o := range m.Nodes {
			if n.ID == x.node && o.ID == y.node && j < len(m.Nodes[i].Distance) {
				p.Distance = m.Nodes[i].Distance[j]
			}
		}
	}
	return []string{"node" + strconv.Itoa(x.node), "node" + strconv.Itoa(y.node)}
}

// Bridges lists the bridges above a device, the nearest first.
func (m *Machine) Bridges(d *PCIDevice) []*PCIDevice {
	var up []*PCIDevice
	for d != nil && len(up) < 64 {
		if d = m.Device(d.Parent); d != nil {
			up = append(up, d)
		}
	}
	return up
}

func (m *Machine) isRootPort(d *PCIDevice) bool { return d.Bridge && d.Parent == "" }

// narrowest is the least bandwidth on the way. A link counts with its present
// width at its best speed, for idle links slow down.
func narrowest(x, y *PCIDevice, up, down []*PCIDevice, p Proximity) float64 {
	least := math.Inf(1)
	consider := func(d *PCIDevice) {
		if d == nil || d.Link == nil {
			return
		}
		l := *d.Link
		if d.Best != nil {
			l.GTs = d.Best.GTs
		}
		least = math.Min(least, l.BytesPerSecond())
	}
	consider(x)
	consider(y)
	if p < Root && len(up) > 0 {
		up = up[:len(up)-1] // the bridge where the ways meet is not crossed
	}
	for _, d := range append(slices.Clone(up), down...) {
		consider(d)
	}
	if math.IsInf(least, 1) {
		return 0
	}
	return least
}
