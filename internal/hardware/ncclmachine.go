package hardware

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Machine turns a topology file into a map: NUMA nodes with their CPUs, the
// PCI tree, GPUs, adapters and links. Clouds describe their instances so where
// the guest's own PCI tree is made up.
func (t *Topology) Machine() (*Machine, error) {
	table, err := newIdentities(identityText)
	if err != nil {
		return nil, err
	}
	b := &topologyBuilder{table: table, m: &Machine{Schema: Schema, Facts: map[string][]Fact{}}, used: map[string]int{}}
	for _, child := range t.Root.Children {
		switch child.Name {
		case "cpu":
			b.cpu(child)
		case "nic":
			b.nic(child, "")
		default:
			b.gap(child.Name, "element is not known")
		}
	}
	b.finish()
	return b.m.tidy(), nil
}

type topologyBuilder struct {
	table *identities
	m     *Machine
	used  map[string]int // addresses seen: some files repeat one
	links []pendingLink
	node  int
	cpus  Set
	// unknown are the addresses of functions that nothing tells the class of.
	unknown []string
}

// pendingLink is a link whose ends are named by address.
type pendingLink struct {
	from   string
	target string
	kind   string
	hub    bool // the target is a switch
	count  int
	each   float64 // bytes per second of one link
}

func (b *topologyBuilder) gap(where, why string) {
	if len(b.m.Gaps) < maxGaps {
		b.m.Gaps = append(b.m.Gaps, Gap{Path: clip(where), Reason: why})
	}
}

func (b *topologyBuilder) cpu(e *Element) {
	id := -1 // one node, not numbered
	if text := e.Attr("numaid"); text != "" {
		n, err := strconv.ParseInt(text, 0, 32)
		if err != nil || n < -1 || n >= MaxIndex {
			b.gap("cpu", "numaid "+clip(text)+" is not a node")
			return
		}
		id = int(n)
	}
	cpus, err := ParseMask(e.Attr("affinity"))
	if err != nil {
		b.gap("cpu", err.Error())
	}
	b.node, b.cpus = max(id, 0), cpus
	b.addNode(cpus)
	b.m.System.Architecture = e.Attr("arch")
	b.m.System.CPUVendor = e.Attr("vendor")
	for _, child := range e.Children {
		switch child.Name {
		case "pci":
			b.pci(child, "", fmt.Sprintf("cpu%d", b.node))
		case "nic":
			b.nic(child, "")
		default:
			b.gap(child.Name, "element below cpu is not known")
		}
	}
}

// addNode adds the node; a file of several hosts has one for each of them.
func (b *topologyBuilder) addNode(cpus Set) {
	for i := range b.m.Nodes {
		if n := &b.m.Nodes[i]; n.ID == b.node {
			n.CPUs = n.CPUs.Or(cpus)
			n.Own = n.CPUs
			return
		}
	}
	b.m.Nodes = append(b.m.Nodes, Node{ID: b.node, CPUs: cpus, Own: cpus, Allowed: true})
}

func (b *topologyBuilder) pci(e *Element, parent, root string) {
	address := strings.ToLower(e.Attr("busid"))
	if n := b.used[address]; n > 0 {
		b.used[address]++
		address = fmt.Sprintf("%s#%d", address, n) // told apart, as the file does by place
	} else {
		b.used[address] = 1
	}
	class := strings.TrimPrefix(e.Attr("class"), "0x")
	d := PCIDevice{Address: address, Class: class, Vendor: strings.TrimPrefix(e.Attr("vendor"), "0x"), Device: strings.TrimPrefix(e.Attr("device"), "0x"),
		SubVendor: strings.TrimPrefix(e.Attr("subsystem_vendor"), "0x"), SubDevice: strings.TrimPrefix(e.Attr("subsystem_device"), "0x"),
		Parent: parent, Root: root, Node: b.node, LocalCPUs: b.cpus, LocalNodes: NewSet(b.node), Bridge: strings.HasPrefix(class, "0604")}
	d.Link = topologyLink(e)
	b.m.PCI = append(b.m.PCI, d)
	b.classless(&d, e)
	index := b.accelerator(&b.m.PCI[len(b.m.PCI)-1], slices.ContainsFunc(e.Children, func(c *Element) bool { return c.Name == "gpu" }))
	gpus := 0
	for _, child := range e.Children {
		switch child.Name {
		case "pci":
			b.pci(child, address, root)
		case "gpu":
			// Further ones are ranks or partitions that share the device,
			// each listed with all of its links.
			if gpus++; gpus == 1 {
				b.gpu(child, index)
			}
		case "pcilink": // switches joined beside the tree
			p := pendingLink{from: address, target: strings.ToLower(child.Attr("target")), kind: "pcie", count: 1}
			if d.Link != nil {
				p.each = d.Link.BytesPerSecond()
			}
			b.links = append(b.links, p)
		case "nic":
			b.nic(child, address)
		default:
			b.gap(child.Name, "element below pci is not known")
		}
	}
}

// classless notes functions of which the file gives the address alone, and
// adapters without an element that names them.
func (b *topologyBuilder) classless(d *PCIDevice, e *Element) {
	named := slices.ContainsFunc(e.Children, func(c *Element) bool { return c.Name == "gpu" || c.Name == "nic" })
	switch {
	case named:
	case d.Class == "" && len(e.Children) == 0:
		b.unknown = append(b.unknown, d.Address)
	case strings.HasPrefix(d.Class, "02"):
		b.m.Interfaces = append(b.m.Interfaces, Interface{Name: d.Address, Address: d.Address, State: "unknown", Node: b.node})
	}
}

// topologyLink reads link_speed ("32.0 GT/s PCIe", "8 GT/s") and link_width.
func topologyLink(e *Element) *PCILink {
	number, _, _ := strings.Cut(e.Attr("link_speed"), " ")
	gts, err1 := strconv.ParseFloat(number, 64)
	width, err2 := strconv.Atoi(e.Attr("link_width"))
	if err1 != nil || err2 != nil || !(gts > 0 && gts < 1000) || width <= 0 || width > 64 {
		return nil
	}
	return &PCILink{GTs: gts, Width: width}
}

// accelerator adds a device that the table knows; -1 where it knows none. A
// cloud's file may leave the vendor out, then the class says what it is, or
// the element below it.
func (b *topologyBuilder) accelerator(d *PCIDevice, gpu bool) int {
	a := Accelerator{Bus: "pci", Address: d.Address, Node: d.Node, LocalCPUs: d.LocalCPUs, LocalNodes: d.LocalNodes, Health: Health{State: "ok"}}
	row := b.table.find("pci", d.Vendor+":"+d.Device, d.Class[:min(4, len(d.Class))])
	switch {
	case row != nil:
		a.Kind, a.Vendor, a.Model, a.Memory = row.kind, row.vendor, row.model, row.memory
	case gpu || strings.HasPrefix(d.Class, "03"):
		a.Kind = "gpu"
	default:
		return -1
	}
	b.m.Accelerators = append(b.m.Accelerators, a)
	return len(b.m.Accelerators) - 1
}

// Bandwidth of one link in bytes a second and direction, by generation.
// nccl/src/graph/topo.h and rccl's, LOC_BW and *_BW constants.
func nvlinkBandwidth(sm int) float64 {
	switch {
	case sm >= 100:
		return 40.1e9
	case sm >= 90:
		return 20.6e9
	case sm == 86:
		return 12e9
	case sm >= 70:
		return 20e9
	case sm >= 60:
		return 18e9
	}
	return 0
}

func xgmiBandwidth(gcn string) float64 {
	switch gcn {
	case "906", "908", "gfx906", "gfx908":
		return 24e9
	case "910", "gfx90a":
		return 36e9
	}
	if strings.HasPrefix(gcn, "94") || strings.HasPrefix(gcn, "gfx94") || strings.HasPrefix(gcn, "gfx95") {
		return 48e9
	}
	return 0
}

func (b *topologyBuilder) gpu(e *Element, index int) {
	a := &b.m.Accelerators[index]
	sm, _ := strconv.Atoi(e.Attr("sm"))
	gcn := e.Attr("gcn")
	if gcn != "" {
		a.Architecture = "gfx" + strings.TrimPrefix(gcn, "gfx")
	} else if sm > 0 {
		a.Architecture = "sm_" + strconv.Itoa(sm)
	}
	for _, l := range e.Children {
		count, err := strconv.Atoi(l.Attr("count"))
		if err != nil || count <= 0 {
			count = 1
		}
		p := pendingLink{from: a.Address, target: strings.ToLower(l.Attr("target")), kind: l.Name, count: min(count, 1<<10),
			hub: strings.HasPrefix(l.Attr("tclass"), "0x0680")}
		switch l.Name {
		case "nvlink":
			p.each = nvlinkBandwidth(sm)
		case "xgmi":
			p.each = xgmiBandwidth(gcn)
		case "c2c": // the way to the processor, bw in MB/s for each
			mbps, _ := strconv.Atoi(l.Attr("bw"))
			p.target, p.each = "node"+strconv.Itoa(a.Node), float64(max(mbps, 0))*1e6
		default:
			b.gap(l.Name, "element below gpu is not known")
			continue
		}
		b.links = append(b.links, p)
	}
}

func (b *topologyBuilder) nic(e *Element, address string) {
	for _, n := range e.Children {
		if n.Name != "net" {
			b.gap(n.Name, "element below nic is not known")
			continue
		}
		mbps, _ := strconv.Atoi(n.Attr("speed"))
		b.m.Interfaces = append(b.m.Interfaces, Interface{Name: n.Attr("name"), RDMA: n.Attr("name"), Address: address, Mbps: max(mbps, 0), State: "up", Node: b.node})
	}
}

func (b *topologyBuilder) finish() {
	m := b.m
	slices.SortFunc(m.Nodes, func(x, y Node) int { return cmp.Compare(x.ID, y.ID) })
	for _, n := range m.Nodes {
		m.Present = m.Present.Or(n.CPUs)
		m.AllowedNodes.Add(n.ID)
	}
	m.Online, m.Allowed = m.Present, m.Present
	if m.Online.Empty() && len(m.Nodes) > 0 {
		b.gap("cpu", "no affinity: which CPUs the nodes have is unknown")
	}
	if n := len(b.unknown); n > 0 {
		b.gap("pci", fmt.Sprintf("%d functions have an address and no class: GPUs cannot be told from adapters: %s", n, strings.Join(b.unknown[:min(n, 16)], " ")))
	}
	for _, id := range m.Online.IDs() {
		c := CPU{ID: id, Package: -1, Die: -1, Cluster: -1, Core: len(m.Cores), Node: -1, Kind: -1, Allowed: true}
		for _, n := range m.Nodes {
			if n.CPUs.Has(id) {
				c.Node = n.ID
			}
		}
		m.CPUs = append(m.CPUs, c)
		m.Cores = append(m.Cores, Core{ID: id, Package: -1, CPUs: NewSet(id), Kind: -1})
	}
	b.addHubs()
	counts := map[string]int{}
	byAddress := map[string]string{}
	for i := range m.Accelerators {
		a := &m.Accelerators[i]
		a.ID = a.Kind + strconv.Itoa(counts[a.Kind])
		counts[a.Kind]++
		byAddress[a.Address] = a.ID
	}
	b.joinLinks(byAddress)
	slices.SortFunc(m.PCI, func(x, y PCIDevice) int { return strings.Compare(x.Address, y.Address) })
	s := &scan{m: m}
	for i := range m.Accelerators {
		s.finish(&m.Accelerators[i])
	}
}

// addHubs adds the switches that links end at: a file holds no more of them
// than their addresses.
func (b *topologyBuilder) addHubs() {
	known := map[string]bool{}
	for _, a := range b.m.Accelerators {
		known[a.Address] = true
	}
	for _, p := range b.links {
		if p.hub && !known[p.target] {
			known[p.target] = true
			b.m.Accelerators = append(b.m.Accelerators, Accelerator{Kind: "switch", Vendor: "NVIDIA", Model: "NVSwitch", Bus: "pci", Address: p.target,
				Node: -1, Health: Health{State: "ok"}})
		}
	}
}

// joinLinks names the ends and counts each pair once.
func (b *topologyBuilder) joinLinks(byAddress map[string]string) {
	type ends struct{ a, b, kind string }
	seen := map[ends]int{} // index into m.Links
	for _, p := range b.links {
		l := Link{A: cmp.Or(byAddress[p.from], p.from), B: cmp.Or(byAddress[p.target], p.target), Kind: p.kind, Count: p.count,
			BytesPerSecond: float64(p.count) * p.each, Source: "topology file"}
		if _, back := seen[ends{l.B, l.A, l.Kind}]; back {
			continue
		}
		key := ends{l.A, l.B, l.Kind}
		if i, more := seen[key]; more {
			b.m.Links[i].Count += l.Count
			b.m.Links[i].BytesPerSecond += l.BytesPerSecond
			continue
		}
		seen[key] = len(b.m.Links)
		b.m.Links = append(b.m.Links, l)
	}
}
