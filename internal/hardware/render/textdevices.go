package render

import (
	"cmp"
	"fmt"
	"strings"

	"oscine.dev/oscine/internal/hardware"
)

// devices lists accelerators, networks, disks and links; with wide also the
// whole PCI tree, temperatures and power.
func (p *treePrinter) devices() {
	for i := range p.m.Accelerators {
		p.accelerator(&p.m.Accelerators[i])
	}
	for _, i := range p.m.Interfaces {
		p.line(1, "%s  network%s%s%s%s", i.Name, p.behind(i.Address, i.Node), when(i.Mbps > 0, "  "+rate(i.Mbps)), when(i.State != "up", "  "+i.State),
			when(i.RDMA != "", "  RDMA "+i.RDMA))
	}
	for _, d := range p.m.Disks {
		p.line(1, "%s  disk%s  %s%s%s", d.Name, p.behind(d.Address, d.Node), d.Size, when(d.Model != "", "  "+d.Model), when(d.Spins, "  spins"))
	}
	p.links()
	if !p.wide {
		return
	}
	p.pciTree("", 1)
	for _, z := range p.m.Thermal {
		p.line(1, "temperature %s  %.1f °C%s", z.Name, z.Celsius, when(z.Critical > 0, fmt.Sprintf("  critical at %.0f °C", z.Critical)))
	}
	for _, l := range p.m.Power {
		p.line(1, "power %s  limit %.4g W%s", l.Name, l.Watts, when(l.MaxWatts > 0, fmt.Sprintf(" of %.4g W", l.MaxWatts)))
	}
	if f := p.m.Frequency; f != nil {
		p.line(1, "clocks by %s, governor %s%s", f.Driver, f.Governor, when(f.EnergyPreference != "", ", preference "+f.EnergyPreference))
	}
}

func when(condition bool, text string) string {
	if condition {
		return text
	}
	return ""
}

func (p *treePrinter) accelerator(a *hardware.Accelerator) {
	p.line(1, "%s%s%s%s%s  %s", a.ID, when(a.Vendor+a.Model != "", "  "+strings.TrimSpace(a.Vendor+" "+a.Model)), when(a.Memory > 0, "  "+a.Memory.String()),
		when(a.Architecture != "", "  "+a.Architecture), p.behind(a.Address, a.Node), a.Health.State)
	for _, why := range a.Health.Reasons {
		p.line(2, "! %s", why)
	}
	for _, why := range a.Missing {
		p.line(2, "! %s", why)
	}
	for _, part := range a.Partitions {
		p.line(2, "%s  %s%s", part.ID, part.Profile, when(part.Memory > 0, "  "+part.Memory.String()))
	}
	if p.wide {
		p.line(2, "driver %s%s%s", cmp.Or(a.Driver, "none"), when(a.DriverVersion != "", " "+a.DriverVersion), when(a.Firmware != "", "  firmware "+a.Firmware))
		if len(a.DeviceNodes) > 0 {
			p.line(2, "needs %s", strings.Join(a.DeviceNodes, " "))
		}
		if len(a.PartitionModes) > 0 {
			p.line(2, "can be divided: %s", strings.Join(a.PartitionModes, " "))
		}
	}
}

// behind tells where a device sits: address, link, node.
func (p *treePrinter) behind(address string, node int) string {
	text := ""
	if address != "" {
		text = "  " + address
	}
	if d := p.m.Device(address); d != nil && d.Link != nil {
		text += "  " + brief(d.Link)
		if d.Degraded {
			text += fmt.Sprintf(" (could be x%d)", d.Best.Width)
		}
	}
	if node >= 0 && len(p.m.Nodes) > 1 {
		text += fmt.Sprintf("  node %d", node)
	}
	return text
}

// links lists links, like ones as one line.
func (p *treePrinter) links() {
	if len(p.m.Links) == 0 {
		return
	}
	count := map[string]int{}
	var order []string
	for _, l := range p.m.Links {
		key := fmt.Sprintf("%d × %s%s", max(1, l.Count), l.Kind, when(l.BytesPerSecond > 0, fmt.Sprintf("  %.4g GB/s", l.BytesPerSecond/1e9)))
		if count[key]++; count[key] == 1 {
			order = append(order, key)
		}
	}
	for _, key := range order {
		if count[key] > 4 && !p.wide {
			p.line(1, "%d pairs joined by %s", count[key], key)
			continue
		}
		for _, l := range p.m.Links {
			if k := fmt.Sprintf("%d × %s%s", max(1, l.Count), l.Kind, when(l.BytesPerSecond > 0, fmt.Sprintf("  %.4g GB/s", l.BytesPerSecond/1e9))); k == key {
				p.line(1, "%s – %s  %s", l.A, l.B, key)
			}
		}
	}
}

// pciTree lists the PCI devices below a bridge. Depth bounds a damaged tree
// whose bridges run in a circle.
func (p *treePrinter) pciTree(parent string, depth int) {
	if depth > 32 {
		return
	}
	for _, d := range p.m.PCI {
		above := d.Parent
		if above != "" && p.m.Device(above) == nil {
			above = ""
		}
		if above != parent || d.Address == parent {
			continue
		}
		p.line(depth, "pci %s  %s  %s:%s%s%s%s", d.Address, d.ClassName(), d.Vendor, d.Device, when(d.Name != "", "  "+d.Name),
			when(d.Driver != "", "  "+d.Driver), p.pciLine(&d))
		p.pciTree(d.Address, depth+1)
	}
}

func (p *treePrinter) pciLine(d *hardware.PCIDevice) string {
	text := ""
	if d.Link != nil {
		text = fmt.Sprintf("  x%d %g GT/s", d.Link.Width, d.Link.GTs)
		if d.Best != nil && *d.Best != *d.Link {
			text += fmt.Sprintf(" (best x%d %g GT/s)", d.Best.Width, d.Best.GTs)
		}
	}
	return text + when(d.IOMMUGroup != "", "  iommu "+d.IOMMUGroup) + when(d.ACS, "  acs") + when(d.MaxVFs > 0, fmt.Sprintf("  vfs %d/%d", d.VFs, d.MaxVFs)) +
		when(d.PhysicalFunction != "", "  vf of "+d.PhysicalFunction)
}
