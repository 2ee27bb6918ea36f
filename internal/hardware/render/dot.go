package render

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"oscine.dev/oscine/internal/hardware"
)

// DOT writes the machine as a graph for Graphviz: nodes, PCI bridges that
// lead to something, devices, and links with their bandwidth.
func DOT(w io.Writer, m *hardware.Machine) error {
	var b strings.Builder
	b.WriteString("graph machine {\n  rankdir=LR; node [shape=box, style=rounded, fontname=sans];\n")
	fmt.Fprintf(&b, "  label=%s; labelloc=t;\n", strconv.Quote(Title(m)))
	for _, n := range m.Nodes {
		label := fmt.Sprintf("node %d", n.ID)
		if n.Bytes > 0 {
			label += "\n" + strings.TrimSpace(n.Bytes.String()+" "+n.Memory)
		}
		if !n.Own.Empty() {
			label += "\ncpus " + n.Own.String()
		}
		fmt.Fprintf(&b, "  %s [label=%s];\n", quoted("node", n.ID), strconv.Quote(label))
	}
	for i, n := range m.Nodes {
		for j := i + 1; j < len(m.Nodes) && j < len(n.Distance); j++ {
			fmt.Fprintf(&b, "  %s -- %s [style=dotted, label=\"%d\"];\n", quoted("node", n.ID), quoted("node", m.Nodes[j].ID), n.Distance[j])
		}
	}
	d := &drawing{m: m, drawn: map[string]bool{}}
	shown := map[string]bool{}
	for i := range m.PCI {
		dev := &m.PCI[i]
		if d.device(dev) == nil {
			continue
		}
		color := ""
		if a := m.Accelerator(dev.Address); a != nil && a.Health.State != "ok" {
			color = ", color=red"
		}
		fmt.Fprintf(&b, "  %s [label=%s, penwidth=2%s];\n", strconv.Quote(dev.Address), strconv.Quote(caption(m, dev)), color)
		dotUp(&b, m, dev, shown)
	}
	for _, l := range m.Links {
		fmt.Fprintf(&b, "  %s -- %s [color=green, penwidth=%d, label=%s];\n", strconv.Quote(addressOf(m, l.A)), strconv.Quote(addressOf(m, l.B)),
			min(6, 1+l.Count/3), strconv.Quote(fmt.Sprintf("%d × %s%s", max(1, l.Count), l.Kind, when(l.BytesPerSecond > 0, fmt.Sprintf(", %.3g GB/s", l.BytesPerSecond/1e9)))))
	}
	b.WriteString("}\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func quoted(kind string, id int) string { return strconv.Quote(kind + strconv.Itoa(id)) }

// dotUp draws the edges from a device to its NUMA node, each bridge once.
func dotUp(b *strings.Builder, m *hardware.Machine, dev *hardware.PCIDevice, shown map[string]bool) {
	for at := dev; at != nil && !shown[at.Address]; at = m.Device(at.Parent) {
		shown[at.Address] = true
		label := ""
		if at.Link != nil {
			label = brief(at.Link)
		}
		switch up := m.Device(at.Parent); {
		case up != nil:
			fmt.Fprintf(b, "  %s -- %s [label=%s];\n", strconv.Quote(up.Address), strconv.Quote(at.Address), strconv.Quote(label))
		default:
			for _, n := range at.LocalNodes.IDs() {
				fmt.Fprintf(b, "  %s -- %s [label=%s];\n", quoted("node", n), strconv.Quote(at.Address), strconv.Quote(label))
			}
		}
	}
}

// caption names a device and what it is.
func caption(m *hardware.Machine, dev *hardware.PCIDevice) string {
	lines := []string{}
	if a := m.Accelerator(dev.Address); a != nil {
		lines = append(lines, strings.TrimSpace(a.ID+" "+strings.TrimSpace(a.Vendor+" "+a.Model)))
	}
	for _, i := range m.Interfaces {
		if i.Address == dev.Address {
			lines = append(lines, i.Name)
		}
	}
	for _, k := range m.Disks {
		if k.Address == dev.Address {
			lines = append(lines, k.Name+" "+k.Size.String())
		}
	}
	return strings.Join(append(lines, dev.Address), "\n")
}

// addressOf is the PCI address behind a link's end.
func addressOf(m *hardware.Machine, end string) string {
	if a := m.Accelerator(end); a != nil {
		return a.Address
	}
	return end
}
