package hardware

import (
	"strings"
	"testing"

	"oscine.dev/oscine/internal/hardware/hardwaretest"
)

// TestIdentities reads the table and keeps it honest: no row that an earlier
// one hides, drivers where there is a device to use.
func TestIdentities(t *testing.T) {
	rows, err := parseIdentities(identityText)
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) < 100 {
		t.Errorf("%d rows", len(rows))
	}
	seen := map[string]bool{}
	for _, r := range rows {
		key := r.bus + " " + r.match + "/" + r.class
		if seen[key] {
			t.Errorf("%s is listed twice", key)
		}
		seen[key] = true
		if r.bus != "pci" && r.bus != "usb" && r.bus != "of" {
			t.Errorf("%s: bus %q", key, r.bus)
		}
		if len(r.drivers) == 0 && r.match != "*:*" {
			t.Errorf("%s names no driver", key)
		}
	}
	for _, bad := range []string{"pci 1:2 | gpu", "pci 1:2 | gpu | V | M | much | d | | s", "pci 1:2 | | V | M | | d | | s"} {
		if _, err := parseIdentities(bad); err == nil || !strings.HasPrefix(err.Error(), "identities.txt:1: ") {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

func TestFindIdentity(t *testing.T) {
	table, err := newIdentities(identityText)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ bus, id, class, want string }{
		{"pci", "10de:2330", "0302", "gpu NVIDIA H100 SXM5 80GB"},
		{"pci", "10de:ffff", "0302", "gpu NVIDIA "},
		{"pci", "10de:10f0", "0403", ""}, // the sound function of a GPU
		{"pci", "1da3:1063", "1200", "npu Habana Gaudi3"},
		{"pci", "1002:74a1", "1200", "gpu AMD Instinct MI300X"},
		{"pci", "1022:17f0", "1180", "npu AMD XDNA 2 NPU (Strix, Krackan)"},
		{"pci", "8086:9999", "1200", "accelerator  "},
		{"pci", "8086:4940", "0b40", "crypto Intel QuickAssist"},
		{"pci", "8086:225c", "0b40", "vector Intel Xeon Phi coprocessor"},
		{"pci", "8086:1572", "0200", ""},
		{"usb", "18d1:9302", "", "tpu Google Coral USB Accelerator"},
		{"of", "rockchip,rk3588-rknpu", "", "npu Rockchip RK3588 NPU"},
		{"of", "amlogic, galcore", "", "npu Amlogic Vivante NPU"},
		{"of", "arm,mali-t860", "", "gpu Arm Mali (Midgard)"},
		{"pci", "1eff:1220", "1200", "npu Rebellions RBLN"},
		{"pci", "1f0f:1f11", "0200", ""}, // NebulaMatrix, a maker of network adapters
	} {
		got := ""
		if row := table.find(c.bus, c.id, c.class); row != nil {
			got = row.kind + " " + row.vendor + " " + row.model
		}
		if got != c.want {
			t.Errorf("%s %s class %s is %q, want %q", c.bus, c.id, c.class, got, c.want)
		}
	}
}

// TestMissing says of unusable devices what keeps them from use.
func TestMissing(t *testing.T) {
	const dir = "/sys/devices/pci0000:00/0000:00:0b.0"
	for name, c := range map[string]struct {
		change func(*hardwaretest.Tree)
		want   string
	}{
		"usable":    {func(*hardwaretest.Tree) {}, ""},
		"no driver": {func(t *hardwaretest.Tree) { t.Remove(dir + "/driver") }, "no driver is bound: load intel_vpu, from the kernel or the vendor's driver pack"},
		"no node":   {func(t *hardwaretest.Tree) { t.Remove(dir + "/accel") }, "driver intel_vpu made no device node: see its messages in the kernel log"},
		"vfio": {func(t *hardwaretest.Tree) { t.Link(dir+"/driver", "/sys/bus/pci/drivers/vfio-pci") },
			"handed to virtual machines (vfio-pci): bind it to intel_vpu to use it here"},
	} {
		tree := hardwaretest.HybridLaptop()
		c.change(tree)
		a := described(t, tree).Accelerator("npu0")
		if got := strings.Join(a.Missing, "; "); got != c.want || a.Usable() != (c.want == "") {
			t.Errorf("%s: missing %q, usable %t, want %q", name, got, a.Usable(), c.want)
		}
	}
}
