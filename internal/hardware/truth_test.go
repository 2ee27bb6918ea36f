package hardware

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// sharedData is where recorded machines of others lie beside a checkout.
const sharedData = "../../../shared/data"

// facets are what a recorded machine is compared by, in hwloc's terms: what
// the cgroup forbids and a POWER GPU's memory are left out.
type facets struct {
	Present, Allowed string
	Places           []string // CPU: package/die/core
	Counts           map[string]int
	Caches           map[string][]string // "L2" -> "cpus size line ways"
	Nodes            []string
	Distances        [][]int
	Kinds            []string
	PCI              []string
	shown            map[int]bool
	Attributes       map[string][]string
}

// sameFacets compares what a facet holds, not how it was made.
func sameFacets() gocmp.Option { return cmpopts.IgnoreUnexported(facets{}) }

// shows reports whether hwloc lists a node.
func (f *facets) shows(n Node) bool { return f.shown[n.ID] }

// TestTruth compares every recorded machine found with what hwloc 2.15 says
// of it.
func TestTruth(t *testing.T) {
	dir := filepath.Join(sharedData, "topology-public")
	files, _ := filepath.Glob(filepath.Join(dir, "*.truth.json"))
	if len(files) == 0 {
		t.Skip("no recorded machines beside the checkout: " + dir)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".truth.json")
		t.Run(name, func(t *testing.T) {
			want := readTruth(t, file)
			m, err := Discover(filepath.Join(dir, name+".tar.bz2"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(want, facetsOf(m, want.shows), sameFacets()); diff != "" {
				t.Errorf("facets differ (-hwloc +ours):\n%s", diff)
			}
		})
	}
}

// truth is the part of a *.truth.json file that the facets use.
type truth struct {
	Counts    map[string]int          `json:"counts"`
	Allowed   string                  `json:"allowed_cpus"`
	Complete  string                  `json:"complete_cpus"`
	PUs       []puTruth               `json:"pus"`
	NUMA      []nodeTruth             `json:"numa"`
	Caches    map[string][]cacheTruth `json:"caches"`
	PCI       []pciTruth              `json:"pci"`
	Distances []struct {
		Name      string
		OSIndexes []int `json:"os_indexes"`
		Matrix    [][]int
	} `json:"distances"`
	CPUKinds []struct{ CPUs string } `json:"cpukinds"`
	MemAttrs []struct {
		Name   string
		Values []struct {
			Target    string `json:"target_obj_gp_index"`
			Value     string
			Initiator string `json:"initiator_cpuset"`
		}
	} `json:"memattrs"`
}

type puTruth struct {
	OS                 int
	Package, Die, Core *string
}

type nodeTruth struct {
	OS      int
	CPUs    string
	Bytes   uint64
	Subtype string
}

type cacheTruth struct {
	CPUs             string
	Size, Line, Ways int
}

type pciTruth struct {
	BusID, Class, Vendor, Device string
	LocalCPUs                    string `json:"local_cpus"`
	LocalNUMA                    string `json:"local_numa"`
}

func readTruth(t *testing.T, file string) facets {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var h truth
	if err := json.Unmarshal(data, &h); err != nil {
		t.Fatal(err)
	}
	return h.facets(t)
}

// facets are the facets that hwloc tells of.
func (h *truth) facets(t *testing.T) facets {
	t.Helper()
	f := facets{Present: h.Complete, Allowed: h.Allowed, Counts: map[string]int{}, Caches: map[string][]string{}, Attributes: map[string][]string{}}
	for _, p := range h.PUs {
		f.Places = append(f.Places, fmt.Sprintf("%d: %s/%s/%s", p.OS, orDash(p.Package), orDash(p.Die), orDash(p.Core)))
	}
	for _, kind := range []string{"Package", "Die", "Core", "PU"} {
		f.Counts[kind] = h.Counts[kind]
	}
	for level, caches := range h.Caches {
		for _, c := range caches {
			f.Caches[level] = append(f.Caches[level], fmt.Sprintf("%s %d %d %d", c.CPUs, c.Size, c.Line, c.Ways))
		}
		slices.Sort(f.Caches[level])
	}
	f.shown = map[int]bool{}
	for _, n := range h.NUMA {
		f.shown[n.OS] = true
		f.Nodes = append(f.Nodes, fmt.Sprintf("%d [%s] %d %s", n.OS, n.CPUs, n.Bytes, n.Subtype))
	}
	slices.Sort(f.Nodes)
	for _, d := range h.Distances {
		if d.Name == "NUMALatency" {
			f.Distances = d.Matrix
		}
	}
	for _, k := range h.CPUKinds {
		f.Kinds = append(f.Kinds, k.CPUs)
	}
	for _, p := range h.PCI {
		if facetClass(p.Class) {
			f.PCI = append(f.PCI, strings.Join([]string{p.BusID, p.Class, p.Vendor, p.Device, p.LocalCPUs, p.LocalNUMA}, " "))
		}
	}
	slices.Sort(f.PCI)
	for _, a := range h.MemAttrs {
		// hwloc numbers the nodes' objects one after the other, so their
		// distances from the first one with a value survive.
		first := 1 << 60
		for _, v := range a.Values {
			gp, _ := strconv.Atoi(v.Target)
			first = min(first, gp)
		}
		for _, v := range a.Values {
			gp, _ := strconv.Atoi(v.Target)
			cpus, err := ParseMask(v.Initiator)
			if err != nil {
				t.Fatal(err)
			}
			f.Attributes[a.Name] = append(f.Attributes[a.Name], fmt.Sprintf("+%d [%s] %s", gp-first, cpus, v.Value))
		}
		slices.Sort(f.Attributes[a.Name])
	}
	return f
}

func facetClass(class string) bool {
	return strings.HasPrefix(class, "02") || strings.HasPrefix(class, "03") || strings.HasPrefix(class, "0b40") || strings.HasPrefix(class, "12")
}

// facetsOf looks at our map through hwloc's eyes. Which nodes without memory
// of their own hwloc lists depends on its version: such a node counts if
// listed says so, a GPU's memory likewise.
func facetsOf(m *Machine, listed func(Node) bool) facets {
	f := facets{Present: m.Present.String(), Allowed: m.Allowed.String(), Counts: map[string]int{}, Caches: map[string][]string{}, Attributes: map[string][]string{}}
	var shown []Node
	var local Set
	for _, n := range m.Nodes {
		if n.Allowed && (n.Memory != "GPUMemory" && n.Bytes > 0 || listed(n)) {
			shown = append(shown, n)
			local.Add(n.ID)
		}
	}
	// keep is what remains of a group of CPUs: its allowed ones; an empty
	// group stays where memory that may be used lies within.
	keep := func(cpus Set) (string, bool) {
		left := cpus.And(m.Allowed)
		if !left.Empty() {
			return left.String(), true
		}
		return "", slices.ContainsFunc(shown, func(n Node) bool { return !n.CPUs.Empty() && n.CPUs.In(cpus) })
	}
	f.places(m, keep)
	for _, c := range m.Caches {
		name := "MemCache"
		if c.Kind != MemorySide {
			name = fmt.Sprintf("L%d%s", c.Level, map[CacheKind]string{Data: "d", Instruction: "i"}[c.Kind])
		}
		if cpus, ok := keep(c.CPUs); ok {
			if c.Kind == MemorySide { // the file leaves lines and ways of these out
				c.LineSize, c.Ways = 0, 0
			}
			f.Caches[name] = append(f.Caches[name], fmt.Sprintf("%s %d %d %d", cpus, c.Size, c.LineSize, c.Ways))
		}
	}
	for _, list := range f.Caches {
		slices.Sort(list)
	}
	f.memory(m, shown)
	for _, k := range m.Kinds {
		f.Kinds = append(f.Kinds, k.CPUs.String())
	}
	for _, d := range m.PCI {
		if facetClass(d.Class) {
			f.PCI = append(f.PCI, strings.Join([]string{d.Address, d.Class[:4], d.Vendor, d.Device, d.LocalCPUs.And(m.Allowed).String(),
				nearNodes(shown, d).And(local).String()}, " "))
		}
	}
	slices.Sort(f.PCI)
	return f
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

func (f *facets) places(m *Machine, keep func(Set) (string, bool)) {
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
	count := func(kind string, cpus Set) {
		if _, ok := keep(cpus); ok {
			f.Counts[kind]++
		}
	}
	for _, p := range m.Packages {
		count("Package", p.CPUs)
	}
	for _, d := range m.Dies {
		count("Die", d.CPUs)
	}
	for _, c := range m.Cores {
		count("Core", c.CPUs)
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
			if v := value(n); v > 0 && slices.Contains(rows, i) {
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
