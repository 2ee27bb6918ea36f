package render

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"oscine.dev/oscine/internal/hardware"
)

// roots draws the PCI trees of the devices worth showing, one box a root bus.
func (d *drawing) roots(mine func(*hardware.PCIDevice) bool) *box {
	row := &box{gap: 10, across: 3}
	var names []string
	byRoot := map[string][]*hardware.PCIDevice{}
	for i := range d.m.PCI {
		dev := &d.m.PCI[i]
		if !mine(dev) || d.device(dev) == nil {
			continue
		}
		if byRoot[dev.Root] == nil {
			names = append(names, dev.Root)
		}
		byRoot[dev.Root] = append(byRoot[dev.Root], dev)
	}
	// By the nodes that they belong to, as memory and processors lie.
	node := func(root string) int {
		n := byRoot[root][0].Node
		if n < 0 {
			return len(d.m.Nodes)
		}
		return n
	}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(node(a), node(b)) })
	for _, root := range names {
		b := &box{class: "root", title: cmp.Or(root, "PCI"), titleSize: 10.5, gap: 8, pad: 8}
		b.kids, b.across = shelves(d.below(byRoot[root], 0)), 1
		row.kids = append(row.kids, b)
	}
	if len(row.kids) == 0 {
		return nil
	}
	row.across = min(len(row.kids), 2)
	return row
}

// below draws devices under their bridges. A bridge with one thing below it
// is not drawn, a switch with several is a box around them.
func (d *drawing) below(devices []*hardware.PCIDevice, depth int) []*box {
	var kids []*box
	for len(devices) > 0 {
		path := d.chain(devices[0])
		if depth >= len(path) {
			kids = append(kids, d.device(devices[0]))
			devices = devices[1:]
			continue
		}
		bridge := path[depth]
		n := 0
		for n < len(devices) {
			p := d.chain(devices[n])
			if depth >= len(p) || p[depth] != bridge {
				break
			}
			n++
		}
		group := d.below(devices[:n], depth+1)
		if len(group) > 1 {
			title, tag := "bridge "+bridge.Address, ""
			if d.isSwitch(bridge) {
				title = "PCIe switch " + bridge.Address
			}
			if bridge.Link != nil {
				tag = brief(bridge.Link)
			}
			b := &box{class: "switch", title: title, titleSize: 10.5, tag: tag, gap: 8, pad: 8, kids: shelves(group), across: 1}
			group = []*box{b}
		}
		kids = append(kids, group...)
		devices = devices[n:]
	}
	return kids
}

// shelves sorts boxes into rows: networks and disks, bridges, accelerators
// last, for the lines of their fabric leave downwards.
func shelves(kids []*box) []*box {
	var rows [3]*box
	for _, k := range kids {
		shelf := 2
		switch k.class {
		case "net", "disk":
			shelf = 0
		case "switch":
			shelf = 1
		}
		if rows[shelf] == nil {
			rows[shelf] = &box{gap: 8}
		}
		rows[shelf].kids = append(rows[shelf].kids, k)
	}
	var out []*box
	for _, row := range rows {
		if row != nil {
			if row.across = len(row.kids); row.across > 4 {
				row.across = (row.across + 1) / 2
			}
			out = append(out, row)
		}
	}
	return out
}

// isSwitch: a bridge below a bridge with bridges below it.
func (d *drawing) isSwitch(b *hardware.PCIDevice) bool {
	return b.Parent != "" && slices.ContainsFunc(d.m.PCI, func(o hardware.PCIDevice) bool { return o.Parent == b.Address && o.Bridge })
}

// chain is the bridges above a device, from the root down.
func (d *drawing) chain(dev *hardware.PCIDevice) []*hardware.PCIDevice {
	up := d.m.Bridges(dev)
	slices.Reverse(up)
	return up
}

// brief is a link's width and bandwidth: "x16 63 GB/s".
func brief(l *hardware.PCILink) string {
	return fmt.Sprintf("x%d %.3g GB/s", l.Width, l.BytesPerSecond()/1e9)
}

// device draws a device worth showing, nil for others.
func (d *drawing) device(dev *hardware.PCIDevice) *box {
	var b *box
	if a := d.m.Accelerator(dev.Address); a != nil {
		b = d.accelerator(a)
		if parts := d.parts(dev.Address); len(parts) > 1 {
			b = &box{class: "switch", title: fmt.Sprintf("%s, divided into %d", dev.Address, len(parts)), titleSize: 10.5, gap: 8, pad: 8, kids: parts, across: 2}
		}
	}
	for _, i := range d.m.Interfaces {
		if i.Address != dev.Address {
			continue
		}
		if b == nil {
			b = &box{class: "net", title: i.Name, pad: 8, minW: 96}
		}
		if i.Mbps > 0 {
			b.notes = append(b.notes, rate(i.Mbps))
		}
		if i.RDMA != "" && i.RDMA != i.Name {
			b.notes = append(b.notes, "RDMA "+i.RDMA)
		}
		d.drawn[i.Name] = true
	}
	for _, k := range d.m.Disks {
		if k.Address != dev.Address {
			continue
		}
		if b == nil {
			b = &box{class: "disk", title: k.Name, pad: 8, minW: 96}
			b.notes = []string{k.Size.String()}
		} else {
			b.notes = append(b.notes, k.Name+" "+k.Size.String())
		}
		d.drawn[k.Name] = true
	}
	if b == nil {
		return nil
	}
	if dev.Link != nil {
		b.tag, b.tagBad = brief(dev.Link), dev.Degraded
		if dev.Degraded {
			b.tag += fmt.Sprintf(" of x%d", dev.Best.Width)
		}
	}
	return b
}

// parts are the boxes of the logical devices that a function is divided into.
func (d *drawing) parts(function string) []*box {
	var kids []*box
	for i := range d.m.Accelerators {
		if a := &d.m.Accelerators[i]; a.Function() == function {
			kids = append(kids, d.accelerator(a))
		}
	}
	return kids
}

func rate(mbps int) string {
	if mbps >= 1000 {
		return strconv.FormatFloat(float64(mbps)/1000, 'g', 4, 64) + " Gb/s"
	}
	return strconv.Itoa(mbps) + " Mb/s"
}

func (d *drawing) accelerator(a *hardware.Accelerator) *box {
	d.drawn[a.ID] = true
	b := &box{class: a.Kind, title: a.ID, titleSize: 13, pad: 9, minW: 150, minH: 64}
	if a.Health.State == "lost" || a.Health.State == "failed" {
		b.class = "lost"
	}
	if name := strings.TrimSpace(a.Vendor + " " + a.Model); name != "" {
		b.notes = append(b.notes, name)
	}
	if a.Memory > 0 {
		b.notes = append(b.notes, a.Memory.String())
	}
	for _, n := range d.m.Nodes {
		if n.Memory == "GPUMemory" && n.Device == a.Address {
			b.notes = append(b.notes, fmt.Sprintf("node %d · %s", n.ID, n.Bytes))
		}
	}
	if len(a.Partitions) > 0 {
		b.notes = append(b.notes, fmt.Sprintf("%d partition%s", len(a.Partitions), plural(len(a.Partitions))))
	}
	for _, why := range append(slices.Clone(a.Health.Reasons), a.Missing...) {
		head, _, _ := strings.Cut(why, ":")
		b.notes = append(b.notes, "! "+clip(head))
	}
	return b
}

// elsewhere draws what belongs to no package: devices between packages, on
// USB or within the chip, and memory that no package is near to.
func (d *drawing) elsewhere() *box {
	b := &box{class: "package", title: "Machine", titleSize: 15, gap: 12, pad: 14, across: 1}
	var near hardware.Set
	for _, p := range everyPackage(d.m) {
		near = near.Or(p.Nodes)
	}
	if memory := d.memory(func(n hardware.Node) bool { return !near.Has(n.ID) }); memory != nil {
		b.kids = append(b.kids, memory)
	}
	if roots := d.roots(func(dev *hardware.PCIDevice) bool {
		return !slices.ContainsFunc(everyPackage(d.m), func(p hardware.Package) bool { return d.belongs(dev, p) })
	}); roots != nil {
		b.kids = append(b.kids, roots)
	}
	row := &box{gap: 8, across: 6}
	for i := range d.m.Accelerators {
		if a := &d.m.Accelerators[i]; !d.drawn[a.ID] {
			k := d.accelerator(a)
			k.tag = a.Bus
			row.kids = append(row.kids, k)
		}
	}
	for _, k := range d.m.Disks {
		if !d.drawn[k.Name] {
			row.kids = append(row.kids, &box{class: "disk", title: k.Name, notes: []string{k.Size.String()}, pad: 8, minW: 96})
		}
	}
	for _, i := range d.m.Interfaces {
		if !d.drawn[i.Name] {
			row.kids = append(row.kids, &box{class: "net", title: i.Name, pad: 8, minW: 96})
		}
	}
	if len(row.kids) > 0 {
		row.across = min(row.across, len(row.kids))
		b.kids = append(b.kids, row)
	}
	if len(b.kids) == 0 {
		return nil
	}
	return b
}
