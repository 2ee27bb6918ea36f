package hardware

import (
	"bytes"
	"cmp"
	"slices"
)

// cloudTopologies are where clouds put the topology file of an instance whose
// own PCI tree is made up: NVIDIA's topology daemon, Azure's and Google's
// images.
func cloudTopologies() []string {
	return []string{"/var/run/nvidia-topologyd/virtualTopology.xml", "/opt/microsoft/topo.xml", "/opt/microsoft/ndv5-topo.xml"}
}

// cloudTopology corrects places and links by the cloud's topology file.
func (s *scan) cloudTopology() {
	for _, file := range cloudTopologies() {
		data, err := s.read(file, maxTable)
		if err != nil {
			continue
		}
		t, err := ReadTopology(bytes.NewReader(data))
		if err != nil {
			s.gap(file, "%s", err)
			continue
		}
		told, err := t.Machine()
		if err != nil {
			s.gap(file, "%s", err)
			continue
		}
		s.adoptTopology(told, file)
		return
	}
}

// adoptTopology gives the devices that both maps have the place that the file
// lists, with the bridges between them.
func (s *scan) adoptTopology(told *Machine, file string) {
	m := s.m
	var bridges []PCIDevice
	for _, d := range told.PCI {
		mine := m.Device(d.Address)
		if mine == nil {
			if d.Bridge {
				bridges = append(bridges, d)
			}
			continue
		}
		mine.Parent, mine.Root = d.Parent, d.Root
		if _, known := s.node[d.Node]; known {
			cpus := d.LocalCPUs.And(m.Online)
			if !cpus.Empty() {
				mine.Node, mine.LocalCPUs, mine.LocalNodes = d.Node, cpus, NewSet(d.Node)
			}
		}
		if a := m.Accelerator(d.Address); a != nil {
			a.Node, a.LocalCPUs, a.LocalNodes = mine.Node, mine.LocalCPUs, mine.LocalNodes
			s.fact(a, "place", d.Root, file)
		}
	}
	m.PCI = append(m.PCI, bridges...)
	slices.SortFunc(m.PCI, func(a, b PCIDevice) int { return cmp.Compare(a.Address, b.Address) })
	for _, l := range told.Links {
		a, b := told.Accelerator(l.A), told.Accelerator(l.B)
		if a == nil || b == nil || m.Accelerator(a.Address) == nil || m.Accelerator(b.Address) == nil {
			continue
		}
		l.A, l.B, l.Source = s.nameOf(a.Address), s.nameOf(b.Address), file
		if m.linkBetween(l.A, l.B) == nil {
			m.Links = append(m.Links, l)
		}
	}
}
