package hardware

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// facetsOf looks at our map through hwloc's eyes. Which nodes without memory
// of their own hwloc lists depends on its version: such a node counts if want
// has it, a GPU's memory likewise. read is the tree the map was read from.
func facetsOf(m *Machine, want *facets, read tree) facets {
	f := facets{Present: m.Present.String(), Allowed: m.Allowed.String(), Counts: map[string]int{}, Caches: map[string][]string{}, Attributes: map[string][]string{}}
	var shown []Node
	var local Set
	for _, n := range m.Nodes {
		if n.Allowed && (n.Memory != "GPUMemory" && n.Bytes > 0 || want.shows(n)) {
			shown = append(shown, n)
			local.Add(n.ID)
		}
	}
	// keep is what remains of a group of CPUs: its allowed ones; an empty
	// group stays where memory that may be used is put within: below the
	// outermost group of the CPUs near to it.
	var outer []Set
	keep := func(cpus Set) (string, bool) {
		left := cpus.And(m.Allowed)
		if !left.Empty() {
			return left.String(), true
		}
		return "", slices.ContainsFunc(shown, func(n Node) bool {
			return !n.CPUs.Empty() && n.CPUs.In(cpus) && !(n.CPUs.Equal(cpus) && slices.ContainsFunc(outer, cpus.Equal))
		})
	}
	f.places(m)
	count := func(kind string, cpus Set) {
		if _, ok := keep(cpus); ok {
			f.Counts[kind]++
		}
	}
	for _, p := range m.Packages {
		count("Package", p.CPUs)
		outer = append(outer, p.CPUs)
	}
	for _, d := range m.Dies {
		count("Die", d.CPUs)
		outer = append(outer, d.CPUs)
	}
	for _, c := range m.Caches {
		name := "MemCache"
		if c.Kind != MemorySide {
			name = fmt.Sprintf("L%d%s", c.Level, map[CacheKind]string{Data: "d", Instruction: "i"}[c.Kind])
		}
		cpus, ok := keep(c.CPUs)
		if c.Kind == MemorySide { // the file leaves lines and ways of these out
			c.LineSize, c.Ways = 0, 0
			ok = local.Has(*c.Node)
		}
		if ok {
			f.Caches[name] = append(f.Caches[name], fmt.Sprintf("%s %d %d %d", cpus, c.Size, c.LineSize, c.Ways))
		}
		outer = append(outer, c.CPUs)
	}
	for _, list := range f.Caches {
		slices.Sort(list)
	}
	for _, c := range m.Cores {
		at := cpuPath(c.CPUs.First(), "topology/")
		if read.exists(at+"core_cpus") || read.exists(at+"thread_siblings") { // else we only assume it
			count("Core", c.CPUs)
		}
	}
	f.memory(m, shown)
	for _, k := range m.Kinds {
		f.Kinds = append(f.Kinds, k.CPUs.String())
	}
	for _, d := range m.PCI {
		if facetClass(d.Class) {
			at := hwlocPlace(m, d, read)
			f.PCI = append(f.PCI, strings.Join([]string{d.Address, d.Class[:4], d.Vendor, d.Device, at.LocalCPUs.And(m.Allowed).String(),
				nearNodes(shown, at).And(local).String()}, " "))
		}
	}
	slices.Sort(f.PCI)
	if want.guessed {
		f.Distances = nil // they only served to guess
		delete(f.Caches, "MemCache")
	}
	return f
}

// hwlocPlace is the device whose place hwloc gives to d: the first function of
// d's root bus, by its local_cpus alone. Where that has none, hwloc knows no
// place; we go on to numa_node and to the device itself.
func hwlocPlace(m *Machine, d PCIDevice, read tree) PCIDevice {
	domain, _, _ := strings.Cut(d.Address, ":")
	for up := m.Device(d.Parent); up != nil && strings.HasPrefix(up.Address, domain+":"); up = m.Device(d.Parent) {
		d = *up
	}
	bus := d.Address[:strings.LastIndex(d.Address, ":")+1]
	for _, first := range m.PCI {
		if strings.HasPrefix(first.Address, bus) {
			d = first
			break
		}
	}
	if !read.exists(pciDir + "/" + d.Address + "/local_cpus") {
		d.LocalCPUs, d.LocalNodes = m.Online, m.AllowedNodes
	}
	return d
}

func orDash(id *string) string {
	if id == nil {
		return "-"
	}
	return *id
}

// nearNodes are a device's nodes with those of GPUs beside it.
func nearNodes(shown []Node, d PCIDevice) Set {
	near := d.LocalNodes
	for _, n := range shown {
		if n.Memory == "GPUMemory" && n.CPUs.Meets(d.LocalCPUs) {
			near = near.Or(NewSet(n.ID))
		}
	}
	return near
}

func idOrDash(id int) string {
	if id < 0 {
		return "-"
	}
	return strconv.Itoa(id)
}

func (f *facets) places(m *Machine) {
	// hwloc names an object -1 as unnamed, and knows no die but a part of a
	// package.
	dies := map[int]string{}
	for _, d := range m.Dies {
		for _, id := range d.CPUs.IDs() {
			dies[id] = strconv.Itoa(d.ID)
		}
	}
	for _, c := range m.CPUs {
		if !c.Allowed {
			continue
		}
		f.Counts["PU"]++
		f.Places = append(f.Places, fmt.Sprintf("%d: %s/%s/%s", c.ID, idOrDash(c.Package), cmp.Or(dies[c.ID], "-"), idOrDash(m.Cores[c.Core].ID)))
	}
	for _, kind := range []string{"Package", "Die", "Core", "PU"} {
		f.Counts[kind] += 0
	}
}

func (f *facets) memory(m *Machine, shown []Node) {
	var rows []int
	for i, n := range m.Nodes {
		if slices.ContainsFunc(shown, func(o Node) bool { return o.ID == n.ID }) {
			rows = append(rows, i)
		}
	}
	for _, n := range shown {
		f.Nodes = append(f.Nodes, fmt.Sprintf("%d [%s] %d %s", n.ID, n.CPUs.And(m.Allowed), n.Bytes, n.Memory))
		if len(n.Distance) == 0 || len(shown) < 2 {
			continue
		}
		var row []int
		for _, j := range rows {
			row = append(row, n.Distance[j])
		}
		f.Distances = append(f.Distances, row)
	}
	slices.Sort(f.Nodes)
	for name, value := range map[string]func(Node) int{
		"Bandwidth":      func(n Node) int { return n.bandwidth() },
		"ReadBandwidth":  func(n Node) int { return n.ReadBandwidth },
		"WriteBandwidth": func(n Node) int { return n.WriteBandwidth },
		"Latency":        func(n Node) int { return n.latency() },
		"ReadLatency":    func(n Node) int { return n.ReadLatency },
		"WriteLatency":   func(n Node) int { return n.WriteLatency },
	} {
		first := -1
		for i, n := range m.Nodes {
			if v := value(n); v > 0 && slices.Contains(rows, i) && n.CPUs.Meets(m.Allowed) {
				if first < 0 {
					first = i
				}
				f.Attributes[name] = append(f.Attributes[name], fmt.Sprintf("+%d [%s] %d", i-first, n.CPUs.And(m.Allowed), v))
			}
		}
		slices.Sort(f.Attributes[name])
	}
	for _, name := range slices.Sorted(maps.Keys(f.Attributes)) {
		if len(f.Attributes[name]) == 0 {
			delete(f.Attributes, name)
		}
	}
	slices.SortFunc(shown, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
}
