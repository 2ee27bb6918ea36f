package hardware

import (
	"fmt"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/hardware/hardwaretest"
)

// TestXeonPhi has stacked memory in a node of its own and as a cache.
func TestXeonPhi(t *testing.T) {
	tree := hardwaretest.HybridLaptop()
	tree.File("/proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 87\nmodel name\t: Xeon Phi")
	tree.File("/sys/devices/system/node/online", "0-1")
	tree.File("/sys/devices/system/node/node0/distance", "10 31")
	tree.File("/sys/devices/system/node/node1/distance", "31 10")
	tree.File("/sys/devices/system/node/node1/cpumap", "0")
	tree.File("/sys/devices/system/node/node1/meminfo", "Node 1 MemTotal: 8388608 kB")
	tree.File("/var/run/hwloc/knl_memoryside_cache", "version: 1\ncache_size: 8589934592\nassociativity: 1\ninclusiveness: 0\nline_size: 64")
	m := described(t, tree)
	if m.Nodes[1].Memory != "MCDRAM" || m.Nodes[0].Memory != "DRAM" {
		t.Errorf("nodes %+v", m.Nodes)
	}
	caches := 0
	for _, c := range m.Caches {
		if c.Kind == MemorySide && *c.Node == 0 && c.Size == 8<<30 {
			caches++
		}
	}
	if caches != 1 {
		t.Errorf("%d memory-side caches", caches)
	}
}

// TestMemoryKinds tells HBM and DRAM apart by bandwidth, and CXL by its path.
func TestMemoryKinds(t *testing.T) {
	tree := hardwaretest.GB200()
	tree.Remove("/proc/driver/nvidia")
	tree.File("/sys/devices/system/node/online", "0-3")
	for node, bandwidth := range []int{200000, 210000, 900000, 40000} {
		tree.File(fmt.Sprintf("/sys/devices/system/node/node%d/distance", node), "10 10 10 10")
		at := fmt.Sprintf("/sys/devices/system/node/node%d/access1/initiators/", node)
		tree.Filef(at+"read_bandwidth", "%d", bandwidth)
		tree.Filef(at+"write_bandwidth", "%d", bandwidth)
		tree.File(at+"node0/x", "")
	}
	const region = "/sys/devices/platform/ACPI0017:00/root0/decoder0.0/region3"
	tree.File(region+"/dax_region3/dax3.0/target_node", "3")
	tree.Link("/sys/bus/dax/devices/dax3.0", region+"/dax_region3/dax3.0")
	tree.Link("/sys/bus/dax/drivers/kmem/dax3.0", region+"/dax_region3/dax3.0")
	tree.File(region+"/target0", "decoder5.0")
	tree.Link("/sys/bus/cxl/devices/region3", region)
	const endpoint = "/sys/devices/platform/ACPI0017:00/root0/port1/endpoint5"
	tree.File(endpoint+"/decoder5.0/mode", "ram")
	tree.Link("/sys/bus/cxl/devices/decoder5.0", endpoint+"/decoder5.0")
	tree.Link("/sys/bus/cxl/devices/endpoint5", endpoint)
	tree.Link(endpoint+"/uport", "/sys/devices/pci0000:38/0000:38:00.0/0000:39:00.0/mem0")
	var got []string
	for _, n := range described(t, tree).Nodes {
		got = append(got, fmt.Sprintf("%d %s %s %v", n.ID, n.Memory, n.Device, n.CXL))
	}
	want := []string{"0 DRAM  []", "1 DRAM  []", "2 HBM  []", "3 CXL-DRAM dax3.0 [0000:39:00.0]"}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
}
