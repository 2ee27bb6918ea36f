package hardwaretest

import (
	"fmt"
	"strconv"
	"strings"
)

// oldNames gives the CPU topology the names it had before Linux 5.3.
func (t *Tree) oldNames() {
	for _, rename := range [][2]string{{"/topology/core_cpus", "/topology/thread_siblings"}, {"/topology/package_cpus", "/topology/core_siblings"}} {
		for name, content := range t.Files {
			if before, ok := strings.CutSuffix(name, rename[0]); ok {
				delete(t.Files, name)
				t.Files[before+rename[1]] = content
			}
		}
	}
}

// Mainframe is a partition of an s390x with an old kernel: chips without a
// number, no caches told, no NUMA, CPUs 6 and 7 on standby.
func Mainframe() *Tree {
	t := NewTree()
	t.describe(Processor{Packages: 2, CoresPerPackage: 3, Threads: 1, NodesPerPackage: 1, MemoryPerNode: 8 * gib, L1: 96, L2: 1024, Arch: "s390x"})
	t.oldNames()
	t.Remove("/sys/devices/system/node")
	for id := range 6 {
		dir := "/sys/devices/system/cpu/cpu" + strconv.Itoa(id)
		t.Remove(dir + "/cache")
		t.Remove(dir + "/topology/physical_package_id")
	}
	for _, standby := range []string{"6", "7"} {
		t.File("/sys/devices/system/cpu/cpu"+standby+"/online", "0")
	}
	t.File("/sys/devices/system/cpu/online", "0-5")
	t.File("/proc/cpuinfo", "vendor_id       : IBM/S390\n# processors    : 6\nfeatures\t: esan3 zarch stfle vx nnpa\nprocessor 0: version = FF,  identification = 06A18A,  machine = 2964")
	return t
}

// XeonPhi is a Knights Landing in flat mode: its stacked memory is a node
// without CPUs, and the firmware says that it is far away, so that nothing
// lands there by chance.
func XeonPhi() *Tree {
	t := NewTree()
	t.describe(Processor{Packages: 1, CoresPerPackage: 16, Threads: 2, NodesPerPackage: 1, MemoryPerNode: 96 * gib, L1: 32, L2: 512, Arch: "x86_64"})
	t.oldNames()
	t.File("/proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 87\nmodel name\t: Described Xeon Phi\nflags\t\t: avx2 avx512f avx512er")
	t.File("/sys/devices/system/node/online", "0-1")
	t.node(1, mask(nil), 16*gib)
	for node := range 2 {
		t.Filef(nodeDir(node)+"/distance", "%s", []string{"10 31", "31 10"}[node])
	}
	return t
}

// Quarrel is a server of five packages, two CPUs each, whose firmware tells
// nonsense: the second package claims the CPUs of the third, which know
// better, and CPU 6 counts itself to the first, which does not know of it.
func Quarrel() *Tree {
	t := NewTree()
	t.describe(Processor{Packages: 5, CoresPerPackage: 2, Threads: 1, NodesPerPackage: 1, MemoryPerNode: 4 * gib, L1: 32, L2: 256, L3: 4096, Arch: "x86_64"})
	siblings := func(id int, cpus ...int) {
		t.File(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/topology/package_cpus", id), mask(cpus))
	}
	siblings(2, 2, 3, 4, 5)
	siblings(3, 2, 3, 4, 5)
	siblings(6, 0, 1, 6)
	return t
}
