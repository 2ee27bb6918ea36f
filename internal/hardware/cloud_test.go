package hardware

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/hardware/hardwaretest"
)

// cloudInstance is a virtual machine as clouds give them: all devices on one
// flat bus without a NUMA node, and a file that tells the truth.
func cloudInstance() *hardwaretest.Tree {
	t := hardwaretest.Server8GPU()
	t.Remove("/sys/bus/pci/devices")
	for _, d := range []struct{ address, class, vendor, device string }{
		{"0000:11:00.0", "030200", "10de", "20b2"}, {"0000:12:00.0", "030200", "10de", "20b2"}, {"0000:13:00.0", "020700", "15b3", "101b"},
	} {
		t.PCI(hardwaretest.PCI{Parent: "pci0000:00", Address: d.address, Class: d.class, Vendor: d.vendor, Device: d.device, Driver: "nvidia", Node: -1})
	}
	t.File("/var/run/nvidia-topologyd/virtualTopology.xml", smallTopology)
	return t
}

func TestCloudTopology(t *testing.T) {
	m := described(t, cloudInstance())
	p, err := m.Between("gpu0", "gpu1")
	if err != nil || p.Proximity != Direct || p.Over[0] != "12 × nvlink" {
		t.Errorf("gpu0 to gpu1: %+v, %v", p, err)
	}
	p, err = m.Between("gpu0", "0000:13:00.0")
	if err != nil || p.Proximity != Switch {
		t.Errorf("gpu0 to its adapter: %+v, %v", p, err)
	}
	gpu := m.Accelerator("gpu0")
	if gpu.Node != 0 || gpu.LocalCPUs.String() != "0-15" || gpu.Attributes[AttributeNUMANode] != 0 {
		t.Errorf("gpu0 at node %d, cpus %s, attributes %v", gpu.Node, gpu.LocalCPUs, gpu.Attributes)
	}
	if !slices.ContainsFunc(m.Facts["gpu0"], func(f Fact) bool { return strings.HasSuffix(f.Path, "virtualTopology.xml") }) {
		t.Error("nothing tells where the place came from")
	}
}

// TestCheckNodes plays the answers that a running machine gives.
func TestCheckNodes(t *testing.T) {
	for name, c := range map[string]struct {
		bad  string
		err  error
		want string
	}{
		"all well":      {"", nil, ""},
		"no tools":      {"/dev/nvidia-uvm-tools", unix.ENOENT, ""},
		"no uvm":        {"/dev/nvidia-uvm", unix.ENOENT, "/dev/nvidia-uvm does not exist: load the module nvidia_uvm"},
		"no permission": {"/dev/nvidia0", unix.EACCES, "this user may not open /dev/nvidia0: join the group that owns it, or run as root"},
	} {
		m := described(t, hardwaretest.Server8GPU())
		checkNodes(m, func(path string, _ uint32) error {
			if path == c.bad {
				return c.err
			}
			return nil
		})
		a := m.Accelerator("gpu0")
		if got := strings.Join(a.Missing, "; "); got != c.want || a.Usable() != (c.want == "") {
			t.Errorf("%s: missing %q, health %s", name, got, a.Health.State)
		}
		if name == "no tools" && slices.Contains(a.DeviceNodes, c.bad) {
			t.Errorf("%s: nodes %v", name, a.DeviceNodes)
		}
	}
}

func TestVFIO(t *testing.T) {
	tree := hardwaretest.HybridLaptop()
	dir := tree.PCI(hardwaretest.PCI{Parent: "pci0000:00", Address: "0000:00:05.0", Class: "120000", Vendor: "1ae0", Device: "0063", Driver: "vfio-pci", Node: -1})
	tree.Link(dir+"/iommu_group", "/sys/kernel/iommu_groups/7")
	a := described(t, tree).Accelerator("tpu0")
	if got := fmt.Sprint(a.DeviceNodes, a.Usable()); got != "[/dev/vfio/7 /dev/vfio/vfio] true" {
		t.Error(got)
	}
}
