package hardware

import (
	"fmt"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/hardware/hardwaretest"
)

// one finds the only accelerator of a driver.
func one(t *testing.T, m *Machine, driver string) *Accelerator {
	t.Helper()
	var found *Accelerator
	for i := range m.Accelerators {
		if a := &m.Accelerators[i]; a.Driver == driver {
			if found != nil {
				t.Fatalf("%s and %s are of %s", found.ID, a.ID, driver)
			}
			found = a
		}
	}
	if found == nil {
		t.Fatalf("no accelerator of %s", driver)
	}
	return found
}

// inferentia is a server with so many of AWS' devices, whose driver makes its
// nodes without a parent, as neuron_cdev.c does.
func inferentia(devices int) *hardwaretest.Tree {
	tree := hardwaretest.Server8GPU()
	for i := range devices {
		tree.PCI(hardwaretest.PCI{Parent: "pci0000:00", Address: fmt.Sprintf("0000:00:%02x.0", 0x1c+i), Class: "088000", Vendor: "1d0f", Device: "7264", Driver: "neuron"})
		dir := fmt.Sprintf("/sys/devices/virtual/neuron_device/neuron%d", i)
		tree.Filef(dir+"/uevent", "MAJOR=246\nMINOR=%d\nDEVNAME=neuron%d", i, i)
		tree.File(dir+"/core_count", "2")
		tree.File(dir+"/info/architecture/device_name", "Inferentia2")
		tree.Link(fmt.Sprintf("/sys/class/neuron_device/neuron%d", i), dir)
	}
	return tree
}

func TestNeuronCores(t *testing.T) {
	a := one(t, described(t, inferentia(1)), "neuron")
	if !a.Usable() || strings.Join(a.DeviceNodes, " ") != "/dev/neuron0" || a.SubDevices != 2 || a.Attributes["subDevices"] != 2 || a.Model != "Inferentia2" {
		t.Errorf("got %+v", a)
	}
	// Which node is which function's is not said by sysfs: it is not guessed.
	for _, a := range described(t, inferentia(2)).Accelerators {
		if a.Driver == "neuron" && (a.Usable() || len(a.DeviceNodes) > 0 || len(a.Missing) != 1 || !strings.Contains(a.Missing[0], "made 2 device nodes")) {
			t.Errorf("one of two: %+v", a)
		}
	}
	// Without the driver's nodes it is as with any driver.
	bare := hardwaretest.Server8GPU()
	bare.PCI(hardwaretest.PCI{Parent: "pci0000:00", Address: "0000:00:1c.0", Class: "088000", Vendor: "1d0f", Device: "7264", Driver: "neuron"})
	if a := one(t, described(t, bare), "neuron"); len(a.Missing) != 1 || a.Missing[0] != noDeviceNode("neuron") {
		t.Errorf("without nodes: %v", a.Missing)
	}
}

// The tiles of a GPU have memory of their own and one node together.
func TestXeTiles(t *testing.T) {
	tree := hardwaretest.Server8GPU()
	dir := tree.PCI(hardwaretest.PCI{Parent: "pci0000:00", Address: "0000:00:1d.0", Class: "038000", Vendor: "8086", Device: "0bd5", Driver: "xe"})
	tree.Node(dir, "drm", "renderD190", "dri/renderD190")
	for tile := range 2 {
		tree.Filef(fmt.Sprintf("%s/tile%d/physical_vram_size_bytes", dir, tile), "%d", 64<<30)
		tree.File(fmt.Sprintf("%s/tile%d/gt0/freq0/max_freq", dir, tile), "1600")
	}
	a := one(t, described(t, tree), "xe")
	if a.SubDevices != 2 || a.Memory != 128<<30 || strings.Join(a.DeviceNodes, " ") != "/dev/dri/renderD190" || !a.Usable() {
		t.Errorf("got %+v", a)
	}
	// Newer kernels do not tell the memory of tiles: the table's stands.
	for tile := range 2 {
		tree.Remove(fmt.Sprintf("%s/tile%d/physical_vram_size_bytes", dir, tile))
	}
	if a := one(t, described(t, tree), "xe"); a.SubDevices != 2 || a.Memory != 128<<30 {
		t.Errorf("without the tiles' memory: %+v", a)
	}
}

// What a driver divides only for programs that open it stays one device: Gaudi,
// and the NPUs of Intel and AMD, whose drivers divide themselves by contexts.
func TestOneNodeIsOneDevice(t *testing.T) {
	for _, c := range []struct{ vendor, device, driver, class string }{
		{"1da3", "1020", "habanalabs", "120000"}, {"8086", "7d1d", "intel_vpu", "120000"}, {"1022", "17f0", "amdxdna", "118000"},
	} {
		tree := hardwaretest.Server8GPU()
		dir := tree.PCI(hardwaretest.PCI{Parent: "pci0000:00", Address: "0000:00:1e.0", Class: c.class, Vendor: c.vendor, Device: c.device, Driver: c.driver})
		tree.Node(dir, "accel", "accel0", "accel/accel0")
		if c.driver == "habanalabs" {
			tree.Node(dir, "accel", "accel_controlD0", "accel/accel_controlD0")
		}
		a := one(t, described(t, tree), c.driver)
		if !a.Usable() || a.SubDevices != 0 || a.DeviceNodes[0] != "/dev/accel/accel0" || (c.driver == "habanalabs") != (len(a.DeviceNodes) == 2) {
			t.Errorf("%s: %+v", c.driver, a)
		}
	}
}
