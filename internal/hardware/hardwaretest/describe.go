package hardwaretest

import (
	"fmt"
	"strconv"
	"strings"
)

// Processor describes the CPUs of a machine. Threads of a core are numbered
// as Linux does on x86: all first threads, then all second ones.
type Processor struct {
	Packages, CoresPerPackage, Threads int
	// NodesPerPackage divides a package's cores and memory.
	NodesPerPackage int
	MemoryPerNode   uint64 // bytes
	L1, L2, L3      int    // KiB; L2 per core, L3 per node
	Arch, Model     string
	Flags           string
}

// describe writes CPUs, caches and the CPUs' NUMA nodes.
func (t *Tree) describe(p Processor) {
	cores := p.Packages * p.CoresPerPackage
	perNode := p.CoresPerPackage / p.NodesPerPackage
	nodes := p.Packages * p.NodesPerPackage
	threads := func(first, count int) []int {
		var ids []int
		for thread := range p.Threads {
			for c := first; c < first+count; c++ {
				ids = append(ids, thread*cores+c)
			}
		}
		return ids
	}
	total := cores * p.Threads
	t.Filef("/sys/devices/system/cpu/online", "0-%d", total-1)
	for core := range cores {
		pkg, node := core/p.CoresPerPackage, core/perNode
		for _, id := range threads(core, 1) {
			dir := "/sys/devices/system/cpu/cpu" + strconv.Itoa(id)
			t.File(dir+"/topology/core_cpus", mask(threads(core, 1)))
			t.File(dir+"/topology/package_cpus", mask(threads(pkg*p.CoresPerPackage, p.CoresPerPackage)))
			t.Filef(dir+"/topology/core_id", "%d", core%p.CoresPerPackage)
			t.Filef(dir+"/topology/physical_package_id", "%d", pkg)
			t.cache(dir+"/cache/index0", 1, "Data", p.L1, threads(core, 1))
			t.cache(dir+"/cache/index1", 1, "Instruction", p.L1, threads(core, 1))
			t.cache(dir+"/cache/index2", 2, "Unified", p.L2, threads(core, 1))
			if p.L3 > 0 {
				t.cache(dir+"/cache/index3", 3, "Unified", p.L3, threads(node*perNode, perNode))
			}
		}
	}
	t.Filef("/sys/devices/system/node/online", "%s", span(nodes))
	for node := range nodes {
		t.node(node, mask(threads(node*perNode, perNode)), p.MemoryPerNode)
		var row []string
		for other := range nodes {
			row = append(row, strconv.Itoa(distance(node, other, p.NodesPerPackage)))
		}
		t.File(nodeDir(node)+"/distance", strings.Join(row, " "))
	}
	t.Filef("/proc/meminfo", "MemTotal:       %d kB", uint64(nodes)*p.MemoryPerNode/1024)
	t.File("/proc/sys/kernel/arch", p.Arch)
	t.File("/proc/sys/kernel/osrelease", "7.2.12")
	t.Filef("/proc/cpuinfo", "processor\t: 0\nmodel name\t: %s\nflags\t\t: %s\n", p.Model, p.Flags)
}

func nodeDir(node int) string { return "/sys/devices/system/node/node" + strconv.Itoa(node) }

func (t *Tree) node(node int, cpumap string, bytes uint64) {
	t.File(nodeDir(node)+"/cpumap", cpumap)
	t.Filef(nodeDir(node)+"/meminfo", "Node %d MemTotal:       %d kB", node, bytes/1024)
}

func (t *Tree) cache(dir string, level int, kind string, kib int, cpus []int) {
	t.Filef(dir+"/level", "%d", level)
	t.File(dir+"/type", kind)
	t.Filef(dir+"/size", "%dK", kib)
	t.File(dir+"/shared_cpu_map", mask(cpus))
	t.File(dir+"/coherency_line_size", "64")
	t.Filef(dir+"/number_of_sets", "%d", max(2, kib*1024/64/8))
	t.File(dir+"/physical_line_partition", "1")
}

func distance(a, b, perPackage int) int {
	switch {
	case a == b:
		return 10
	case a/perPackage == b/perPackage:
		return 12
	}
	return 21
}

func span(n int) string {
	if n == 1 {
		return "0"
	}
	return fmt.Sprintf("0-%d", n-1)
}

// mask is the kernel's mask format of a set of CPUs.
func mask(ids []int) string {
	words := []uint32{0}
	for _, id := range ids {
		for id/32 >= len(words) {
			words = append(words, 0)
		}
		words[id/32] |= 1 << (id % 32)
	}
	parts := make([]string, len(words))
	for i, w := range words {
		parts[len(words)-1-i] = fmt.Sprintf("%08x", w)
	}
	return strings.Join(parts, ",")
}

// PCI describes a PCI function below a parent path such as
// "pci0000:10/0000:10:01.0".
type PCI struct {
	Parent, Address       string
	Class, Vendor, Device string // without 0x
	Driver                string
	Node                  int
	CPUs                  []int
	GTs                   string // "32.0"
	Width, BestWidth      int    // 0: no link
}

// Path is the function's place below /sys/devices.
func (p PCI) Path() string { return p.Parent + "/" + p.Address }

// PCI adds a function and returns its directory.
func (t *Tree) PCI(p PCI) string {
	dir := "/sys/devices/" + p.Path()
	t.File(dir+"/class", "0x"+p.Class)
	t.File(dir+"/vendor", "0x"+p.Vendor)
	t.File(dir+"/device", "0x"+p.Device)
	t.Filef(dir+"/numa_node", "%d", p.Node)
	if len(p.CPUs) > 0 {
		t.File(dir+"/local_cpus", mask(p.CPUs))
	}
	if p.Driver != "" {
		t.Link(dir+"/driver", "/sys/bus/pci/drivers/"+p.Driver)
	}
	if p.Width > 0 {
		best := max(p.Width, p.BestWidth)
		t.Filef(dir+"/current_link_speed", "%s GT/s PCIe", p.GTs)
		t.Filef(dir+"/current_link_width", "%d", p.Width)
		t.Filef(dir+"/max_link_speed", "%s GT/s PCIe", p.GTs)
		t.Filef(dir+"/max_link_width", "%d", best)
	}
	t.Link("/sys/bus/pci/devices/"+p.Address, dir)
	return dir
}

// Node adds a character device of a class below a device's directory.
func (t *Tree) Node(dir, class, name, devname string) {
	t.Filef(dir+"/"+class+"/"+name+"/uevent", "MAJOR=1\nMINOR=0\nDEVNAME=%s", devname)
	t.Link("/sys/class/"+class+"/"+name, dir+"/"+class+"/"+name)
}
