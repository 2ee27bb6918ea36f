package place

import (
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// element is any element of an NCCL or RCCL topology file.
type element struct {
	XMLName  xml.Name
	Attrs    []xml.Attr `xml:",any,attr"`
	Children []element  `xml:",any"`
}

func (e *element) attr(name string) string {
	for _, a := range e.Attrs {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// machineOf reads the GPUs of a topology file with their PCIe paths and links.
func machineOf(t *testing.T, name string, raw []byte) *Machine {
	t.Helper()
	var system element
	if err := xml.Unmarshal(raw, &system); err != nil {
		t.Fatal(err)
	}
	m := &Machine{Name: name}
	for i, cpu := range system.Children {
		numa := i
		fmt.Sscan(cpu.attr("numaid"), &numa)
		m.CPUs = append(m.CPUs, CPU{ID: i, NUMA: numa, Package: numa})
		for c := range cpu.Children {
			addGPUs(m, &cpu.Children[c], numa, []string{fmt.Sprint("root", numa)})
		}
	}
	return m
}

func addGPUs(m *Machine, e *element, numa int, path []string) {
	if e.XMLName.Local != "pci" {
		return
	}
	class := e.attr("class")
	bus := e.attr("busid")
	isGPU := strings.HasPrefix(class, "0x0302") || strings.HasPrefix(class, "0x0380") || strings.HasPrefix(class, "0x1200")
	if isGPU {
		m.Devices = append(m.Devices, Device{ID: bus, NUMA: numa, Path: path})
	}
	for i := range e.Children {
		child := &e.Children[i]
		if child.XMLName.Local == "gpu" {
			for _, l := range child.Children {
				count := 1
				fmt.Sscan(l.attr("count"), &count)
				if kind := l.XMLName.Local; kind == "nvlink" || kind == "xgmi" {
					m.Links = append(m.Links, Link{A: bus, B: l.attr("target"), Kind: kind, Count: count})
				}
			}
			continue
		}
		addGPUs(m, child, numa, append(path[:len(path):len(path)], bus))
	}
}

// TestGPUTopologies compares the set chosen for every size on real servers with
// the best of all sets.
func TestGPUTopologies(t *testing.T) {
	dataFile(t, "README.md")
	files, err := filepath.Glob(filepath.Join("..", "..", "..", "shared", "data", "gpu-topology-public", "*.xml"))
	if err != nil || len(files) == 0 {
		t.Skip("the oracle data gpu-topology-public is not beside the checkout")
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".xml"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			m := machineOf(t, file, raw)
			if len(m.Devices) == 0 {
				t.Fatal("no GPUs in the file")
			}
			for k := 1; k <= len(m.Devices); k++ {
				s := newState(t, m)
				p, err := s.Place(t.Context(), Request{Name: "x", Devices: []DeviceRequest{{Name: "gpu", Count: k}}})
				if err != nil {
					t.Fatal(err)
				}
				var set []int
				for _, id := range deviceIDs(p) {
					set = append(set, s.deviceIndex(id))
				}
				got, best := s.fabric.setScore(set), bestSetScore(s.fabric, len(m.Devices), k)
				if got*100 < best*99 {
					t.Errorf("%d of %d GPUs: got a set of score %d, the best has %d", k, len(m.Devices), got, best)
				}
			}
		})
	}
}

// bestSetScore tries every set.
func bestSetScore(f *fabric, n, k int) int64 {
	best := int64(-1)
	set := make([]int, 0, k)
	var visit func(from int)
	visit = func(from int) {
		if len(set) == k {
			best = max(best, f.setScore(set))
			return
		}
		for d := from; d <= n-(k-len(set)); d++ {
			set = append(set, d)
			visit(d + 1)
			set = set[:len(set)-1]
		}
	}
	visit(0)
	return best
}
