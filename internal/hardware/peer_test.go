package hardware

import (
	"encoding/xml"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/hardware/hardwaretest"
)

// TestPeer compares our map of described machines with that of lstopo, where
// it is installed.
func TestPeer(t *testing.T) {
	if _, err := exec.LookPath("lstopo-no-graphics"); err != nil {
		t.Skip("needs lstopo-no-graphics (Debian package hwloc-nox)")
	}
	for name, from := range hardwaretest.Machines() {
		if strings.HasPrefix(name, "server") && testing.Short() || name == "server-8xmi300x" {
			continue // thousands of files to write
		}
		t.Run(name, func(t *testing.T) {
			if arch, ok := from.Files["/proc/sys/kernel/arch"]; ok {
				from.File("/proc/hwloc-nofile-info", "Architecture: "+strings.TrimSpace(arch))
			}
			dir := memoryDir(t)
			if err := from.Write(dir); err != nil {
				t.Fatal(err)
			}
			m, err := Discover(dir)
			if err != nil {
				t.Fatal(err)
			}
			compareWithLstopo(t, m, dir)
		})
	}
}

// memoryDir is a temporary directory, in memory where that can be: a machine is
// thousands of small files.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "oscine-hardware-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// TestPeerInCgroup takes CPUs away by a cgroup.
func TestPeerInCgroup(t *testing.T) {
	if _, err := exec.LookPath("lstopo-no-graphics"); err != nil {
		t.Skip("needs lstopo-no-graphics (Debian package hwloc-nox)")
	}
	from := hardwaretest.HybridLaptop()
	from.File("/proc/self/cgroup", "0::/work")
	from.File("/proc/mounts", "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0") // lstopo before 2.10 looks here
	from.File("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids")
	from.File("/sys/fs/cgroup/cpuset.cpus.effective", "0-21")
	from.File("/sys/fs/cgroup/work/cpuset.cpus.effective", "2-5,12-13,21")
	from.File("/sys/fs/cgroup/work/cpuset.mems.effective", "0")
	dir := memoryDir(t)
	if err := from.Write(dir); err != nil {
		t.Fatal(err)
	}
	m, err := Discover(dir)
	if err != nil {
		t.Fatal(err)
	}
	if m.Allowed.String() != "2-5,12-13,21" {
		t.Errorf("allowed %s", m.Allowed)
	}
	compareWithLstopo(t, m, dir)
}

// hwlocObject is an object of lstopo's XML.
type hwlocObject struct {
	Type    string        `xml:"type,attr"`
	OS      *string       `xml:"os_index,attr"`
	CPUs    string        `xml:"cpuset,attr"`
	Full    string        `xml:"complete_cpuset,attr"`
	Nodes   string        `xml:"nodeset,attr"`
	Memory  uint64        `xml:"local_memory,attr"`
	Size    int           `xml:"cache_size,attr"`
	Line    int           `xml:"cache_linesize,attr"`
	Ways    int           `xml:"cache_associativity,attr"`
	PCI     string        `xml:"pci_busid,attr"`
	PCIType string        `xml:"pci_type,attr"`
	Kids    []hwlocObject `xml:"object"`
}

// compareWithLstopo runs lstopo over the same files.
func compareWithLstopo(t *testing.T, m *Machine, root string) {
	t.Helper()
	lstopo, err := exec.LookPath("lstopo-no-graphics")
	if err != nil {
		t.Log("lstopo-no-graphics is not installed: not compared")
		return
	}
	command := exec.Command(lstopo, "--of", "xml", "--whole-io", "-")
	command.Env = append(os.Environ(), "HWLOC_COMPONENTS=linux,stop", "HWLOC_FSROOT="+root)
	out, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Machine hwlocObject `xml:"object"`
	}
	if err := xml.Unmarshal(out, &doc); err != nil {
		t.Fatal(err)
	}
	h := truth{Counts: map[string]int{}}
	h.Caches = map[string][]cacheTruth{}
	all := hwlocSet(t, doc.Machine.CPUs)
	h.Allowed, h.Complete = all.String(), hwlocSet(t, doc.Machine.Full).String()
	walkHwloc(t, &h, doc.Machine, lstopoPlace{cpus: all, nodes: hwlocSet(t, doc.Machine.Nodes)})
	want := h.facets(t)
	read, err := openDirectory(root)
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	got := facetsOf(m, &want, read)
	// What lstopo's XML has elsewhere, and names that differ among its versions.
	for _, f := range []*facets{&want, &got} {
		f.Attributes, f.Distances, f.Kinds = nil, nil, nil
		for i := range f.Nodes {
			f.Nodes[i] = strings.TrimSpace(strings.NewReplacer("MCDRAM", "MCDRAM", "DRAM", "", "HBM", "", "GPUMemory", "").Replace(f.Nodes[i]))
		}
		delete(f.Caches, "MemCache")
		slices.Sort(f.Places)
	}
	if diff := gocmp.Diff(want, got, sameFacets()); diff != "" {
		t.Errorf("facets of the guest (-lstopo +ours):\n%s", diff)
	}
}

// lstopoPlace is where an object of lstopo's tree lies.
type lstopoPlace struct {
	pack, die, core *string
	cpus, nodes     Set
}

func walkHwloc(t *testing.T, h *truth, o hwlocObject, at lstopoPlace) {
	t.Helper()
	h.Counts[o.Type]++
	if o.CPUs != "" {
		at.cpus, at.nodes = hwlocSet(t, o.CPUs), hwlocSet(t, o.Nodes)
	}
	number := func() int {
		n, err := strconv.Atoi(*o.OS)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	switch {
	case o.Type == "Package":
		at.pack = o.OS
	case o.Type == "Die":
		at.die = o.OS
	case o.Type == "Core":
		at.core = o.OS
	case o.Type == "PU":
		h.PUs = append(h.PUs, puTruth{OS: number(), Package: at.pack, Die: at.die, Core: at.core})
	case o.Type == "NUMANode":
		h.NUMA = append(h.NUMA, nodeTruth{OS: number(), CPUs: hwlocSet(t, o.CPUs).String(), Bytes: o.Memory})
	case strings.HasSuffix(o.Type, "Cache") && o.Type[0] == 'L':
		name := strings.TrimSuffix(o.Type, "Cache")
		if name == "L1" {
			name = "L1d" // lstopo's plain L1 is that of data
		}
		h.Caches[name] = append(h.Caches[name], cacheTruth{at.cpus.String(), o.Size, o.Line, o.Ways})
	case o.PCI != "" && len(o.PCIType) >= 16:
		h.PCI = append(h.PCI, pciTruth{BusID: o.PCI, Class: o.PCIType[:4], Vendor: o.PCIType[6:10], Device: o.PCIType[11:15],
			LocalCPUs: at.cpus.String(), LocalNUMA: at.nodes.String()})
	}
	for _, k := range o.Kids {
		walkHwloc(t, h, k, at)
	}
}

func hwlocSet(t *testing.T, mask string) Set {
	t.Helper()
	mask = strings.ReplaceAll(mask, "0x", "")
	for strings.Contains(mask, ",,") { // lstopo leaves zeros out
		mask = strings.ReplaceAll(mask, ",,", ",0,")
	}
	s, err := ParseMask(mask)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
