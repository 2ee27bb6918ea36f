package inventory

import (
	"strings"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/place"
)

// Machine describes a hardware map to the placement engine. The lowest CPU is
// kept for the system, so that a node stays reachable whatever is asked of the
// others. Offline CPUs, unusable devices and what the process may not use are
// left out.
func Machine(m *hardware.Machine, name string) *place.Machine {
	out := &place.Machine{Name: name}
	caches := lastLevelCaches(m)
	first := true
	for _, c := range m.CPUs {
		if !c.Allowed || !m.Online.Has(c.ID) {
			continue
		}
		cpu := place.CPU{
			ID: c.ID, Core: c.Core, Cache: caches[c.ID], NUMA: max(c.Node, 0), Package: c.Package,
			Features: m.System.Instructions, Reserved: first,
		}
		if c.Kind >= 0 && c.Kind < len(m.Kinds) {
			cpu.Kind = m.Kinds[c.Kind].Name
		}
		first = false
		out.CPUs = append(out.CPUs, cpu)
	}
	for _, n := range m.Nodes {
		if n.Allowed {
			out.NUMA = append(out.NUMA, placeNode(m, n))
		}
	}
	if len(out.NUMA) == 0 {
		out.NUMA = []place.NUMANode{{ID: 0, Memory: int64(m.System.Memory)}}
	}
	out.Devices = devices(m)
	out.Links = links(m)
	return out
}

func placeNode(m *hardware.Machine, n hardware.Node) place.NUMANode {
	node := place.NUMANode{ID: n.ID, Kind: memoryKind(n.Memory), Memory: int64(n.Bytes), HugePages: map[int64]int64{}, Distance: map[int]int{}}
	for _, h := range n.HugePages {
		bytes := int64(h.Size) * int64(h.Total)
		node.HugePages[int64(h.Size)] = bytes
		node.Memory -= bytes // reserved pages are not ordinary memory any more
	}
	for i, d := range n.Distance {
		if i < len(m.Nodes) {
			node.Distance[m.Nodes[i].ID] = d
		}
	}
	return node
}

func memoryKind(word string) place.MemoryKind {
	switch {
	case word == "HBM":
		return place.HBM
	case strings.HasPrefix(word, "CXL"):
		return place.CXL
	case word == "NVM":
		return place.PMEM
	}
	return place.DRAM
}

// lastLevelCaches numbers the largest cache of each CPU; caches are listed
// from the largest level down.
func lastLevelCaches(m *hardware.Machine) map[int]int {
	of := map[int]int{}
	for i, c := range m.Caches {
		if c.Kind == hardware.MemorySide || c.Kind == hardware.Instruction {
			continue
		}
		for _, cpu := range c.CPUs.IDs() {
			if _, known := of[cpu]; !known {
				of[cpu] = i
			}
		}
	}
	return of
}
