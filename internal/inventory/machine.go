package inventory

import (
	"math"
	"strings"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/place"
)

// Machine describes a hardware map to the placement engine. The lowest CPU that
// shared work may use is kept for the system, so that a node stays reachable
// whatever is asked of the others. Offline CPUs, unusable devices, the memory of
// GPUs and what the process may not use are left out.
func Machine(m *hardware.Machine, name string) *place.Machine {
	out := &place.Machine{Name: name}
	caches := lastLevelCaches(m)
	ours := m.Allowed.And(m.Online)
	apart := m.Isolated.Or(m.Tickless).And(ours)
	if apart.Equal(ours) { // a cpuset of such CPUs only: they are all there is
		apart = hardware.Set{}
	}
	first := true
	for _, c := range m.CPUs {
		if !c.Allowed || !m.Online.Has(c.ID) {
			continue
		}
		cpu := place.CPU{
			ID: c.ID, Core: c.Core, Cache: -1, NUMA: max(c.Node, 0), Package: c.Package,
			Features: m.System.Instructions, Isolated: apart.Has(c.ID), Split: split(m, c, ours),
		}
		if cache, known := caches[c.ID]; known {
			cpu.Cache = cache
		}
		if c.Kind >= 0 && c.Kind < len(m.Kinds) {
			cpu.Kind = m.Kinds[c.Kind].Name
		}
		if first && !cpu.Isolated {
			cpu.Reserved, first = true, false
		}
		out.CPUs = append(out.CPUs, cpu)
	}
	for _, n := range m.Nodes {
		if n.Allowed && n.Memory != gpuMemory {
			out.NUMA = append(out.NUMA, placeNode(m, n))
		}
	}
	reserved(m, out.NUMA)
	if len(out.NUMA) == 0 {
		out.NUMA = []place.NUMANode{{ID: 0, Memory: int64(m.System.Memory)}}
	}
	out.Devices = devices(m)
	out.Links = links(m)
	return out
}

// gpuMemory is the map's word for a node that is the memory of a GPU. The GPU's
// driver gives it out with the GPU.
const gpuMemory = "GPUMemory"

// split reports whether a thread of the CPU's core runs work of others, beyond
// the CPUs that are ours.
func split(m *hardware.Machine, c hardware.CPU, ours hardware.Set) bool {
	if c.Core < 0 || c.Core >= len(m.Cores) {
		return false
	}
	return !m.Cores[c.Core].CPUs.And(m.Online).Minus(ours).Empty()
}

func placeNode(m *hardware.Machine, n hardware.Node) place.NUMANode {
	node := place.NUMANode{ID: n.ID, Kind: memoryKind(m, &n), Memory: int64(n.Bytes), HugePages: map[int64]int64{}, PagesInUse: map[int64]int64{}, Distance: map[int]int{}}
	for _, h := range n.HugePages {
		if h.Size == 0 || h.Total <= 0 || h.Size > math.MaxInt64/hardware.Bytes(h.Total) {
			continue
		}
		size, free := int64(h.Size), min(max(h.Free, 0), h.Total)
		node.HugePages[size] = size * int64(h.Total)
		node.PagesInUse[size] = size * int64(h.Total-free)
		node.Memory = max(node.Memory-node.HugePages[size], 0) // such pages are not ordinary memory any more
	}
	for i, d := range n.Distance {
		if i < len(m.Nodes) {
			node.Distance[m.Nodes[i].ID] = d
		}
	}
	return node
}

// reserved counts huge pages that are promised to a mapping as in use. The
// kernel does not tell on which node they will be; here it is that with the most.
func reserved(m *hardware.Machine, nodes []place.NUMANode) {
	for _, h := range m.System.HugePages {
		size := int64(h.Size)
		free := func(n *place.NUMANode) int64 { return n.HugePages[size] - n.PagesInUse[size] }
		for range min(max(h.Reserved, 0), 1<<20) {
			most := -1
			for i := range nodes {
				if free(&nodes[i]) >= size && (most < 0 || free(&nodes[i]) > free(&nodes[most])) {
					most = i
				}
			}
			if most < 0 || size <= 0 {
				break
			}
			nodes[most].PagesInUse[size] += size
		}
	}
}

// memoryKind is the kind of a node's memory. Memory of no stated kind is DRAM beside
// CPUs; on a node without any it may be anything, such as a CXL tier that the
// firmware passes off as plain memory, unless CPUs are offline and may be its.
func memoryKind(m *hardware.Machine, n *hardware.Node) place.MemoryKind {
	switch word := n.Memory; {
	case word == "DRAM":
		return place.DRAM
	case word == "HBM", word == "MCDRAM":
		return place.HBM
	case strings.HasSuffix(word, "NVM"):
		return place.PMEM
	case strings.HasPrefix(word, "CXL"):
		return place.CXL
	case word == "" && (!n.Own.Empty() || m.Online.Empty() || !m.Present.Minus(m.Online).Empty()):
		return place.DRAM
	}
	return place.OtherMemory
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
