package hardware

import (
	"testing"

	"oscine.dev/oscine/internal/hardware/hardwaretest"
)

// TestMultipathDisk finds the controller of a disk that the kernel hangs below
// its NVMe subsystem.
func TestMultipathDisk(t *testing.T) {
	tree := hardwaretest.HybridLaptop()
	dir := tree.PCI(hardwaretest.PCI{Parent: "pci0000:00", Address: "0000:01:00.0", Class: "010802", Vendor: "144d", Device: "a824", Driver: "nvme", Node: 0})
	const subsystem = "/sys/devices/virtual/nvme-subsystem/nvme-subsys0"
	tree.File(dir+"/nvme/nvme0/state", "live")
	tree.Link(subsystem+"/nvme0", dir+"/nvme/nvme0")
	tree.File(subsystem+"/nvme0n1/size", "2097152")
	tree.Link("/sys/class/block/nvme0n1", subsystem+"/nvme0n1")
	tree.File("/sys/devices/virtual/block/loop0/size", "8")
	tree.Link("/sys/class/block/loop0", "/sys/devices/virtual/block/loop0")
	m := described(t, tree)
	if len(m.Disks) != 1 || m.Disks[0].Address != "0000:01:00.0" || m.Disks[0].Size != 1<<30 {
		t.Errorf("disks %+v", m.Disks)
	}
	again, _, _ := reread(t, inMemoryTree(t, tree))
	if len(again.Disks) != 1 || again.Disks[0].Address != "0000:01:00.0" {
		t.Errorf("disks of the recording %+v", again.Disks)
	}
}

// TestSpinningDisks: a disk of a virtual machine is none, whatever the kernel
// takes it for.
func TestSpinningDisks(t *testing.T) {
	tree := hardwaretest.HybridLaptop()
	for name, below := range map[string]string{"sda": "/sys/devices/pci0000:00/0000:00:17.0/ata1/host0/block/sda", "vda": "/sys/devices/pci0000:00/0000:00:03.0/virtio0/block/vda"} {
		tree.File(below+"/size", "2097152")
		tree.File(below+"/queue/rotational", "1")
		tree.Link("/sys/class/block/"+name, below)
	}
	spins := map[string]bool{}
	for _, d := range described(t, tree).Disks {
		spins[d.Name] = d.Spins
	}
	if len(spins) != 2 || !spins["sda"] || spins["vda"] {
		t.Errorf("disks that spin: %v, want sda alone", spins)
	}
}

func TestRDMA(t *testing.T) {
	tree := hardwaretest.Server8GPU()
	efa := tree.PCI(hardwaretest.PCI{Parent: "pci0000:f1", Address: "0000:f1:00.0", Class: "020000", Vendor: "1d0f", Device: "efa1", Driver: "efa", Node: 1})
	tree.File(efa+"/infiniband/rdmap0/ports/1/rate", "200 Gb/sec (4X HDR)")
	tree.File(efa+"/infiniband/rdmap0/ports/1/state", "4: ACTIVE")
	tree.Link("/sys/class/infiniband/rdmap0", efa+"/infiniband/rdmap0")
	for _, i := range described(t, tree).Interfaces {
		if i.Name == "rdmap0" {
			if i.Mbps != 200000 || i.State != "up" || i.Driver != "efa" || i.Node != 1 {
				t.Errorf("%+v", i)
			}
			return
		}
	}
	t.Error("an RDMA device without a network interface is not listed")
}

func TestIsolatedCPUs(t *testing.T) {
	tree := hardwaretest.HybridLaptop()
	tree.File("/sys/devices/system/cpu/isolated", "2-5")
	tree.File("/sys/devices/system/cpu/nohz_full", "4-5")
	m := described(t, tree)
	if m.Isolated.String() != "2-5" || m.Tickless.String() != "4-5" {
		t.Errorf("isolated %s, tickless %s", m.Isolated, m.Tickless)
	}
	tree.File("/sys/devices/system/cpu/nohz_full", "(null)")
	if m := described(t, tree); !m.Tickless.Empty() || len(m.Gaps) > 0 {
		t.Errorf("tickless %s, gaps %v", m.Tickless, m.Gaps)
	}
}
