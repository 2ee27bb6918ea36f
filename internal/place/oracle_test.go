package place

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// dataFile reads a file of the shared data beside the checkout, or skips.
func dataFile(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "..", "shared", "data", name))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("the oracle data %s is not beside the checkout", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// allocatorCases are those of NVIDIA's go-gpuallocator.
type allocatorCases struct {
	Nodes map[string]struct {
		GPUs  int
		Links [][]any
	}
	Cases []struct {
		Node, Name          string
		Available, Required []int
		Size                int
		Expected            []int
	}
	Sequences []struct {
		Test, Node string
		Steps      []struct {
			Size     int
			Expected []int
		}
	}
}

// machine rebuilds a server from its link matrix: NVLinks, and PCIe paths that
// give the pairs the relations named.
func (c *allocatorCases) machine(t *testing.T, name string) *Machine {
	node := c.Nodes[name]
	m := &Machine{Name: name, CPUs: []CPU{{ID: 0}, {ID: 1, NUMA: 1, Package: 1}}}
	relation := map[[2]int]string{}
	for _, l := range node.Links {
		a, b, kind := int(l[0].(float64)), int(l[1].(float64)), l[2].(string)
		if strings.HasPrefix(kind, "P2P") {
			relation[[2]int{a, b}] = kind
		} else {
			count := slices.Index([]string{"", "SingleNVLINKLink", "TwoNVLINKLinks", "ThreeNVLINKLinks", "FourNVLINKLinks"}, kind)
			m.Links = append(m.Links, Link{A: fmt.Sprint(a), B: fmt.Sprint(b), Kind: "nvlink", Count: count})
		}
	}
	group := func(kinds ...string) []int {
		of := make([]int, node.GPUs)
		for i := range of {
			of[i] = i
			for j := range i {
				if slices.Contains(kinds, relation[[2]int{j, i}]) {
					of[i] = of[j]
					break
				}
			}
		}
		return of
	}
	numa := group("P2PLinkSameCPU", "P2PLinkHostBridge", "P2PLinkSingleSwitch")
	root := group("P2PLinkHostBridge", "P2PLinkSingleSwitch")
	sw := group("P2PLinkSingleSwitch")
	for i := range node.GPUs {
		m.Devices = append(m.Devices, Device{ID: fmt.Sprint(i), NUMA: min(numa[i], 1), Path: []string{fmt.Sprint("root", root[i]), fmt.Sprint("switch", sw[i])}})
	}
	return m
}

// TestGPUAllocator holds the choice of linked devices to go-gpuallocator's.
func TestGPUAllocator(t *testing.T) {
	var cases allocatorCases
	if err := json.Unmarshal(dataFile(t, "gpu-alloc/go-gpuallocator-cases.json"), &cases); err != nil {
		t.Fatal(err)
	}
	hold := func(s *State, ids []int) {
		for _, id := range ids {
			p := Placement{Request: Request{Name: fmt.Sprint("holder", id)}, Devices: []DeviceGrant{{ID: fmt.Sprint(id)}}}
			if err := s.Adopt(p); err != nil {
				t.Fatal(err)
			}
		}
	}
	place := func(s *State, name string, size int, required []int) []int {
		req := Request{Name: name}
		for _, id := range required {
			req.Devices = append(req.Devices, DeviceRequest{Name: fmt.Sprint("must", id), Selector: selector(t, fmt.Sprintf(`device.attributes["test"].id == %d`, id))})
		}
		if rest := size - len(required); rest > 0 {
			req.Devices = append(req.Devices, DeviceRequest{Name: "rest", Count: rest})
		} else if rest < 0 {
			return []int{}
		}
		p, err := s.Place(t.Context(), req)
		if err != nil {
			return []int{}
		}
		got := []int{}
		for _, id := range deviceIDs(p) {
			n, _ := strconv.Atoi(id)
			got = append(got, n)
		}
		slices.Sort(got)
		return got
	}
	machine := func(name string) *Machine {
		m := cases.machine(t, name)
		for i := range m.Devices {
			m.Devices[i].Attributes = map[string]any{"test/id": int64(i)}
		}
		return m
	}
	for _, c := range cases.Cases {
		t.Run(c.Name, func(t *testing.T) {
			m := machine(c.Node)
			s := newState(t, m)
			var held []int
			for i := range m.Devices {
				if !slices.Contains(c.Available, i) {
					held = append(held, i)
				}
			}
			hold(s, held)
			if got := place(s, "x", c.Size, c.Required); !slices.Equal(got, c.Expected) {
				t.Errorf("%d of %v with %v: got %v, want %v", c.Size, c.Available, c.Required, got, c.Expected)
			}
		})
	}
	for _, c := range cases.Sequences {
		t.Run(c.Test, func(t *testing.T) {
			s := newState(t, machine(c.Node))
			for i, step := range c.Steps {
				if got := place(s, fmt.Sprint(i), step.Size, nil); !slices.Equal(got, step.Expected) {
					t.Errorf("step %d, %d GPUs: got %v, want %v", i, step.Size, got, step.Expected)
				}
			}
		})
	}
}

// cpuCases are those of the kubelet's CPU manager.
type cpuCases struct {
	Cases []struct {
		Available, Error, Expected, Name, Topology string
		N                                          int
	}
	Topologies map[string]struct {
		CPUDetails map[string]struct{ CoreID, NUMANodeID, SocketID, UncoreCacheID int }
	}
}

func parseCPUs(t *testing.T, list string) []int {
	t.Helper()
	var ids []int
	for _, part := range strings.Split(list, ",") {
		if part == "" {
			continue
		}
		from, to, ok := strings.Cut(part, "-")
		a, err := strconv.Atoi(from)
		b := a
		if ok && err == nil {
			b, err = strconv.Atoi(to)
		}
		if err != nil {
			t.Fatal(err)
		}
		for id := a; id <= b; id++ {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// TestCPUAssignment holds the choice of CPUs to the kubelet's: never more
// sockets, NUMA nodes, caches or cores.
func TestCPUAssignment(t *testing.T) {
	var cases cpuCases
	if err := json.Unmarshal(dataFile(t, "cpu-assign/kubelet-cpu-assignment-cases.json"), &cases); err != nil {
		t.Fatal(err)
	}
	for i, c := range cases.Cases {
		t.Run(fmt.Sprintf("%02d %s", i, c.Name), func(t *testing.T) {
			byID := map[int]*CPU{}
			for text, d := range cases.Topologies[c.Topology].CPUDetails {
				id, _ := strconv.Atoi(text)
				byID[id] = &CPU{ID: id, Core: d.CoreID, NUMA: d.NUMANodeID, Package: d.SocketID, Cache: d.UncoreCacheID}
			}
			var free, want []*CPU
			for _, id := range parseCPUs(t, c.Available) {
				free = append(free, byID[id])
			}
			for _, id := range parseCPUs(t, c.Expected) {
				want = append(want, byID[id])
			}
			got := takeCPUs(free, c.N)
			if len(got) != len(want) {
				t.Fatalf("got %d CPUs, want %d", len(got), len(want))
			}
			a, b := countGroups(got), countGroups(want)
			for l, name := range []string{"sockets", "NUMA nodes", "caches", "cores"} {
				if a[l] > b[l] {
					t.Errorf("spans %d %s, want at most %d", a[l], name, b[l])
				}
			}
		})
	}
}
