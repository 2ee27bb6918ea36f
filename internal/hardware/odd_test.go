package hardware

import (
	"fmt"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/hardware/hardwaretest"
)

// packages tells each package's number and CPUs.
func packages(m *Machine) string {
	var parts []string
	for _, p := range m.Packages {
		parts = append(parts, fmt.Sprintf("%d=%s", p.ID, p.CPUs))
	}
	return strings.Join(parts, " ")
}

// TestQuarrel reads CPUs that contradict each other: who is claimed by two
// packages belongs to the inner one, who is disowned to none, and a gap says so.
func TestQuarrel(t *testing.T) {
	m := described(t, hardwaretest.Quarrel())
	if got, want := packages(m), "0=0-1 1=2-3 2=4-5 4=8-9"; got != want {
		t.Errorf("packages %s, want %s", got, want)
	}
	var of []int
	for _, c := range m.CPUs {
		of = append(of, c.Package)
	}
	if diff := gocmp.Diff([]int{0, 0, 1, 1, 2, 2, -1, -1, 4, 4}, of); diff != "" {
		t.Errorf("package of each CPU (-want +got):\n%s", diff)
	}
	if len(m.Gaps) != 2 || !strings.Contains(m.Gaps[0].Reason, "disagree") {
		t.Errorf("gaps %v", m.Gaps)
	}
}

// TestThreadsDisagree has a CPU that disowns its core: each CPU still has
// exactly one core.
func TestThreadsDisagree(t *testing.T) {
	tree := hardwaretest.XeonPhi()
	tree.File("/sys/devices/system/cpu/cpu16/topology/thread_siblings", "10000")
	m := described(t, tree)
	var seen Set
	for _, c := range m.Cores {
		if c.CPUs.Meets(seen) {
			t.Errorf("core %d has %s, which others have too", c.ID, c.CPUs)
		}
		seen = seen.Or(c.CPUs)
	}
	if len(m.Cores) != 17 || !seen.Equal(m.Online) {
		t.Errorf("%d cores of %s", len(m.Cores), seen)
	}
}

func TestMainframe(t *testing.T) {
	m := described(t, hardwaretest.Mainframe())
	if got, want := packages(m), "-1=0-2 -1=3-5"; got != want {
		t.Errorf("packages %s, want %s: the kernel gives no number", got, want)
	}
	if m.Present.String() != "0-7" || m.Online.String() != "0-5" || len(m.Nodes) != 1 {
		t.Errorf("present %s, online %s, %d nodes", m.Present, m.Online, len(m.Nodes))
	}
}

func TestXeonPhiFlat(t *testing.T) {
	m := described(t, hardwaretest.XeonPhi())
	if n := m.Nodes[1]; n.Memory != "MCDRAM" || n.CPUs.String() != "0-31" || m.Nodes[0].Memory != "DRAM" {
		t.Errorf("nodes %+v", m.Nodes)
	}
}

// TestListsAlone reads a tree that holds lists where the kernel has masks too.
func TestListsAlone(t *testing.T) {
	tree := hardwaretest.HybridLaptop()
	want := described(t, tree)
	for name, content := range tree.Files {
		list, ok := map[string]string{"core_cpus": "core_cpus_list", "package_cpus": "package_cpus_list", "shared_cpu_map": "shared_cpu_list", "cpumap": "cpulist"}[name[strings.LastIndex(name, "/")+1:]]
		if !ok {
			continue
		}
		set, err := ParseMask(content)
		if err != nil {
			t.Fatal(err)
		}
		delete(tree.Files, name)
		tree.File(name[:strings.LastIndex(name, "/")+1]+list, set.String())
	}
	got := described(t, tree)
	a, b := encoded(t, want), encoded(t, got)
	if diff := gocmp.Diff(a, b); diff != "" {
		t.Errorf("map (-masks +lists):\n%s", diff)
	}
}

func encoded(t *testing.T, m *Machine) string {
	t.Helper()
	data, err := Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestNodesUnknown has nodes that name no CPUs: one node stands for them.
func TestNodesUnknown(t *testing.T) {
	tree := hardwaretest.HybridLaptop()
	tree.Remove("/sys/devices/system/node/node0/cpumap")
	m := described(t, tree)
	if len(m.Nodes) != 1 || m.Nodes[0].CPUs.String() != "0-21" || m.Nodes[0].Bytes != 32<<30 || len(m.Gaps) == 0 {
		t.Errorf("nodes %+v, gaps %v", m.Nodes, m.Gaps)
	}
}

// TestBandwidthOfSome names memory although one node's bandwidth is unknown.
func TestBandwidthOfSome(t *testing.T) {
	nodes := []Node{{ReadBandwidth: 90000, WriteBandwidth: 90000}, {ReadBandwidth: 400000, WriteBandwidth: 400000}, {}}
	s := &scan{m: &Machine{Nodes: nodes}}
	s.classifyMemory()
	if nodes[0].Memory != "DRAM" || nodes[1].Memory != "HBM" || nodes[2].Memory != "DRAM" {
		t.Errorf("nodes %+v", nodes)
	}
}

// TestRankByBase orders kinds that only frequencies tell apart: the base
// frequency counts, on every architecture, whatever the turbo says.
func TestRankByBase(t *testing.T) {
	kinds := []Kind{{CPUs: NewSet(0), MaxMHz: 3100, BaseMHz: 2000}, {CPUs: NewSet(1), MaxMHz: 4000, BaseMHz: 1000}}
	rank(kinds)
	if kinds[0].BaseMHz != 1000 {
		t.Errorf("kinds %+v", kinds)
	}
	half := []Kind{{CPUs: NewSet(0), MaxMHz: 5000, CoreType: "IntelCore"}, {CPUs: NewSet(1), MaxMHz: 3900, CoreType: "IntelAtom"}, {CPUs: NewSet(2), MaxMHz: 4000}}
	rank(half)
	if half[0].MaxMHz != 4000 || half[2].CoreType != "IntelCore" {
		t.Errorf("kinds %+v", half)
	}
}

// TestProcessorNames reads /proc/cpuinfo as other architectures print it.
func TestProcessorNames(t *testing.T) {
	for _, c := range []struct{ cpuinfo, want string }{
		{"system type\t\t: generic-loongson-machine\n\nprocessor\t\t: 0\nCPU Family\t\t: Loongson-64bit\nModel Name\t\t: Loongson-3A5000\nISA\t\t\t: loongarch64\nFeatures\t\t: cpucfg lsx lasx lvz",
			"Loongson, Loongson-3A5000, [lasx lsx]"},
		{"vendor_id       : IBM/S390\nfeatures\t: esan3 zarch vx vxe nnpa sie\nprocessor 0: version = 00,  identification = 4729E7,  machine = 3931",
			"IBM/S390, machine type 3931, [nnpa vx vxe]"},
		{"processor\t: 0\nhart\t\t: 1\nisa\t\t: rv64imafdcv\nuarch\t\t: thead,c920\nmvendorid\t: 0x5b7", "T-Head, thead,c920, [v]"},
	} {
		tree := hardwaretest.Mainframe()
		tree.File("/proc/cpuinfo", c.cpuinfo)
		y := described(t, tree).System
		if got := fmt.Sprintf("%s, %s, %v", y.CPUVendor, y.CPUModel, y.Instructions); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}
