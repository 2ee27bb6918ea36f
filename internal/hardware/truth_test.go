package hardware

import (
	"encoding/json"
	"fmt"
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
	Attributes       map[string][]string
	shown            map[int]bool
	guessed          bool // hwloc adds what it knows of Xeon Phi by heart
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
		t.Skip("the oracle data topology-public is not beside the checkout")
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".truth.json")
		t.Run(name, func(t *testing.T) {
			want := readTruth(t, file)
			archive := filepath.Join(dir, name+".tar.bz2")
			m, err := Discover(archive)
			if err != nil {
				t.Fatal(err)
			}
			read, _, err := openTree(archive)
			if err != nil {
				t.Fatal(err)
			}
			defer read.Close()
			if diff := gocmp.Diff(want, facetsOf(m, &want, read), sameFacets()); diff != "" {
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
	Machine  map[string]string       `json:"machine_info"`
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

// facets are the facets that hwloc reports.
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
	if f.guessed = h.Machine["MemoryMode"] != ""; f.guessed {
		// The bandwidths are constants of hwloc's, and so is, where nobody
		// left a note of it, the memory that it shows as a cache.
		f.Attributes = map[string][]string{}
		delete(f.Caches, "L3")
	}
	return f
}

func facetClass(class string) bool {
	return strings.HasPrefix(class, "02") || strings.HasPrefix(class, "03") || strings.HasPrefix(class, "0b40") || strings.HasPrefix(class, "12")
}
