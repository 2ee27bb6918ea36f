package hardware

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Accelerator is a device that computes: GPU, TPU, NPU, FPGA and kin.
type Accelerator struct {
	// ID is the name within the machine: kind and a number, in the order
	// of addresses.
	ID   string `json:"id"`
	Kind string `json:"kind"` // gpu, tpu, npu, fpga, neuromorphic, quantum, vector, video, crypto, switch, accelerator
	// Vendor and Model are from the table of identities or the driver.
	Vendor string `json:"vendor,omitempty"`
	Model  string `json:"model,omitempty"`
	// Bus is pci, usb, platform or virtual, Address the place on it: a PCI
	// address, a USB path (1-2.3), a device-tree or sysfs name. A PCI function
	// that its driver splits into several logical devices stands in the map as
	// these: the first has the function's address, the others that with a
	// number, 0000:0a:00.0#1.
	Bus     string `json:"bus"`
	Address string `json:"address"`
	Memory  Bytes  `json:"memory,omitempty"` // 0 where unknown
	Driver  string `json:"driver,omitempty"`
	// DriverVersion and Firmware as the driver reports them.
	DriverVersion string `json:"driverVersion,omitempty"`
	Firmware      string `json:"firmware,omitempty"`
	Architecture  string `json:"architecture,omitempty"` // gfx942, sm_90
	// Node is the NUMA node, -1 where unknown; LocalCPUs and LocalNodes are
	// the nearest CPUs and memory.
	Node       int `json:"node"`
	LocalCPUs  Set `json:"localCPUs"`
	LocalNodes Set `json:"localNodes"`
	// DeviceNodes are the files under /dev that a container needs.
	DeviceNodes []string `json:"deviceNodes,omitempty"`
	// Files are of the driver, such as its libraries, that a container needs
	// beside; the driver's program knows them.
	Files      []DeviceFile `json:"files,omitempty"`
	Partitions []Partition  `json:"partitions,omitempty"`
	// PartitionModes lists how the device could be divided, as its driver
	// names the modes.
	PartitionModes []string `json:"partitionModes,omitempty"`
	// Profiles are the sizes of partition that can be made and removed one
	// by one, and where; the driver's program knows them.
	Profiles []PartitionProfile `json:"profiles,omitempty"`
	// SubDevices is how many parts of it programs see, which the kernel can only
	// hand out together: NeuronCores, tiles. 0 where there are none or the driver
	// does not tell.
	SubDevices int    `json:"subDevices,omitempty"`
	Health     Health `json:"health"`
	// Missing says what keeps the device from use, in words that end with
	// the next step; empty for a usable device.
	Missing []string `json:"missing,omitempty"`
	// Attributes are what selectors see, by the names of Kubernetes DRA.
	Attributes map[string]any `json:"attributes"`
}

// DeviceFile is a file of this machine and where containers expect it.
type DeviceFile struct {
	Host      string `json:"host"`
	Container string `json:"container"` // below /usr/local or /opt
}

// Partition is a part of a device that can be handed out by itself.
type Partition struct {
	ID          string   `json:"id"`      // within the machine, as gpu0-mig1-0
	Profile     string   `json:"profile"` // as the driver names it, 1g.10gb
	Memory      Bytes    `json:"memory,omitempty"`
	DeviceNodes []string `json:"deviceNodes,omitempty"` // beside the device's own
	// Start is the first of the slices that it takes, where they are known.
	Start  int `json:"start,omitempty"`
	Slices int `json:"slices,omitempty"`
}

// PartitionProfile is a size of partition. Places are counted in slices, as
// NVIDIA's MIG counts its memory.
type PartitionProfile struct {
	Name    string `json:"name"`   // as the driver names it, 1g.10gb
	Slices  int    `json:"slices"` // that it takes
	Starts  []int  `json:"starts"` // where it may begin
	Memory  Bytes  `json:"memory,omitempty"`
	Compute int    `json:"compute,omitempty"` // share of the processors, in slices of them
	// Instances is how many of these there may be at once, 0 where only their
	// places bound it.
	Instances int `json:"instances,omitempty"`
}

// Health is how a device fares.
type Health struct {
	State   string   `json:"state"` // ok, degraded, failed, lost, unusable
	Reasons []string `json:"reasons,omitempty"`
}

// Function is the address of the PCI function behind the device, or the
// address of a device on another bus.
func (a *Accelerator) Function() string {
	address, _, _ := strings.Cut(a.Address, "#")
	return address
}

// Usable reports whether work can be given to the device.
func (a *Accelerator) Usable() bool {
	return len(a.Missing) == 0 && (a.Health.State == "ok" || a.Health.State == "degraded")
}

// The attribute names that Kubernetes DRA standardises; see
// k8s.io/dynamic-resource-allocation/deviceattribute.
const (
	AttributeNUMANode = "resource.kubernetes.io/numaNode"
	AttributePCIeRoot = "resource.kubernetes.io/pcieRoot"
	AttributePCIBusID = "resource.kubernetes.io/pciBusID"
)

// accelerators finds all accelerators: on PCI, on USB, in the device tree.
func (s *scan) accelerators() {
	table, err := newIdentities(identityText)
	if err != nil {
		s.gap("identities.txt", "%s", err)
		return
	}
	for i := range s.m.PCI {
		s.pciAccelerator(table, &s.m.PCI[i])
	}
	s.usbAccelerators(table)
	s.treeAccelerators(table)
	s.fpgaRegions()
	s.neuron()
	amd := s.kfdNodes()
	s.splitByKFD(amd)
	s.numberAccelerators()
	s.kfdLinks(amd)
}

func (s *scan) pciAccelerator(table *identities, d *PCIDevice) {
	row := table.find("pci", d.Vendor+":"+d.Device, d.Class[:4])
	if row == nil {
		return
	}
	a := Accelerator{Kind: row.kind, Vendor: row.vendor, Model: row.model, Bus: "pci", Address: d.Address,
		Driver: d.Driver, Node: d.Node, LocalCPUs: d.LocalCPUs, LocalNodes: d.LocalNodes, Health: Health{State: "ok"}}
	if d.PhysicalFunction == "" { // a virtual one has a part of it, which only its driver knows
		a.Memory = row.memory
	}
	d.Name = strings.TrimSpace(row.vendor + " " + row.model)
	if a.Node < 0 && d.LocalNodes.Len() == 1 {
		a.Node = d.LocalNodes.First()
	}
	dir := pciDir + "/" + d.Address
	s.fact(&a, "identity", d.Vendor+":"+d.Device, dir+"/device")
	s.fact(&a, "model", a.Model, "table of identities: "+row.source)
	s.fact(&a, "driver", d.Driver, dir+"/driver")
	s.fact(&a, "local cpus", d.LocalCPUs.String(), dir+"/local_cpus")
	if a.Memory > 0 {
		s.fact(&a, "memory", row.memory.String(), "table of identities: "+row.source)
	}
	a.DeviceNodes = s.deviceNodes(dir)
	switch {
	case d.Driver == "vfio-pci" && slices.Contains(row.drivers, "vfio-pci") && d.IOMMUGroup != "":
		a.DeviceNodes = []string{"/dev/vfio/" + d.IOMMUGroup}
		s.fact(&a, "device node", a.DeviceNodes[0], dir+"/iommu_group")
	case d.Driver == "nvidia":
		s.nvidia(&a)
	case d.Driver == "amdgpu":
		s.amdgpu(&a, dir)
	case d.Driver == "i915" || d.Driver == "xe":
		s.intelGPU(&a, dir)
	}
	s.driverVersion(&a)
	s.usability(&a, row)
	if d.Degraded {
		a.Health = Health{State: "degraded", Reasons: []string{fmt.Sprintf("PCI link runs at x%d of x%d", d.Link.Width, d.Best.Width)}}
	}
	s.errorCounters(&a, dir)
	if status, _ := s.text(dir + "/power/runtime_status"); status != "suspended" && s.silent(dir) {
		a.Health = silenced()
	}
	s.m.Accelerators = append(s.m.Accelerators, a)
}

// notClasses are directories below a device that hold no devices of its driver.
var notClasses = [...]string{"power", "driver", "subsystem", "of_node", "firmware_node", "iommu", "iommu_group", "msi_irqs", "hwmon", "link", "physfn", "net", "infiniband"}

// maxClassDirs bounds the directories below one device.
const maxClassDirs = 64

// deviceNodes lists the character devices that a driver made for a device:
// every DIR/CLASS/NAME with a DEVNAME in its uevent file, whatever the class is
// called. Drivers name their classes as they like.
func (s *scan) deviceNodes(dir string) []string {
	var nodes []string
	entries := s.dir(dir)
	for _, class := range entries[:min(len(entries), maxClassDirs)] {
		// Attributes are lower-case words too; what has a colon is another device.
		if slices.Contains(notClasses[:], class) || strings.Contains(class, ":") {
			continue
		}
		at := path.Join(dir, class)
		names, err := s.names(at)
		if err != nil {
			continue // an attribute
		}
		for _, name := range names[:min(len(names), maxClassDirs)] {
			if node := s.devName(path.Join(at, name)); node != "" {
				nodes = append(nodes, node)
			}
		}
	}
	return nodes
}

// devName is the device node of a class device, empty where it has none.
func (s *scan) devName(dir string) string {
	uevent, _ := s.text(dir + "/uevent")
	for line := range strings.Lines(uevent) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "DEVNAME="); ok && path.IsAbs(path.Join("/dev", name)) && !strings.Contains(name, "..") {
			return path.Join("/dev", name)
		}
	}
	return ""
}

// driverVersion reads the version of the module that drives a device.
func (s *scan) driverVersion(a *Accelerator) {
	if a.DriverVersion != "" || a.Driver == "" {
		return
	}
	module := strings.ReplaceAll(a.Driver, "-", "_")
	file := "/sys/module/" + module + "/version"
	if a.DriverVersion, _ = s.text(file); a.DriverVersion != "" {
		s.fact(a, "driver version", a.DriverVersion, file)
	}
}

// usability names what keeps a device from use.
func (s *scan) usability(a *Accelerator, row *identity) {
	if len(row.drivers) == 0 || a.Kind == "switch" {
		return
	}
	wanted := strings.Join(row.drivers, " or ")
	switch {
	case a.Driver == "" && s.loaded(row.drivers) != "":
		a.Missing = append(a.Missing, fmt.Sprintf("%s is loaded and has not taken the device: see its messages in the kernel log", s.loaded(row.drivers)))
	case a.Driver == "":
		a.Missing = append(a.Missing, fmt.Sprintf("no driver is bound: load %s, from the kernel or the vendor's driver pack", wanted))
	case strings.HasPrefix(a.Driver, "vfio") && !slices.Contains(row.drivers, "vfio-pci") || a.Driver == "pci-stub":
		a.Missing = append(a.Missing, fmt.Sprintf("handed to virtual machines (%s): bind it to %s to use it here", a.Driver, wanted))
	case len(a.DeviceNodes) == 0 && !slices.Contains(row.drivers, a.Driver), a.Driver == "nouveau":
		// Any driver that makes device nodes will do, but NVIDIA's own
		// libraries cannot work over nouveau.
		a.Missing = append(a.Missing, fmt.Sprintf("driver %s is bound, work needs %s", a.Driver, wanted))
	case len(a.DeviceNodes) == 0:
		a.Missing = append(a.Missing, noDeviceNode(a.Driver))
	}
	if len(a.Missing) == 0 {
		for _, node := range row.nodes {
			if !slices.Contains(a.DeviceNodes, node) {
				a.DeviceNodes = append(a.DeviceNodes, node)
			}
		}
	}
}

// loaded returns the first of the drivers whose module is loaded or built in.
func (s *scan) loaded(drivers []string) string {
	for _, driver := range drivers {
		if s.exists("/sys/module/" + strings.ReplaceAll(driver, "-", "_")) {
			return driver
		}
	}
	return ""
}

// numberAccelerators sorts by kind and address and gives the names.
func (s *scan) numberAccelerators() {
	list := s.m.Accelerators
	slices.SortStableFunc(list, func(a, b Accelerator) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Address, b.Address))
	})
	counts := map[string]int{}
	for i := range list {
		old := list[i].Address
		list[i].ID = fmt.Sprintf("%s%d", list[i].Kind, counts[list[i].Kind])
		counts[list[i].Kind]++
		s.m.Facts[list[i].ID] = append(s.m.Facts[list[i].ID], s.m.Facts[old]...)
		delete(s.m.Facts, old)
		for p := range list[i].Partitions {
			list[i].Partitions[p].ID = list[i].ID + "-" + list[i].Partitions[p].ID
		}
	}
}

// finish sets what follows from everything else known of a device.
func (s *scan) finish(a *Accelerator) {
	if len(a.Missing) > 0 && a.Health.State == "ok" {
		a.Health.State = "unusable"
	}
	a.Attributes = map[string]any{"kind": a.Kind}
	set := func(name, value string) {
		if value != "" {
			a.Attributes[name] = value
		}
	}
	set("vendor", a.Vendor)
	set("model", a.Model)
	set("driver", a.Driver)
	set("driverVersion", a.DriverVersion)
	set("architecture", a.Architecture)
	if a.Memory > 0 {
		a.Attributes["memory"] = uint64(a.Memory)
	}
	if a.SubDevices > 0 {
		a.Attributes["subDevices"] = a.SubDevices
	}
	if a.Node >= 0 {
		a.Attributes[AttributeNUMANode] = a.Node
	}
	if a.Bus == "pci" {
		a.Attributes[AttributePCIBusID] = a.Function()
		if d := s.m.Device(a.Function()); d != nil {
			set(AttributePCIeRoot, d.Root)
		}
	}
}

// Device finds a PCI device by its address, nil for none.
func (m *Machine) Device(address string) *PCIDevice {
	i, ok := slices.BinarySearchFunc(m.PCI, address, func(d PCIDevice, a string) int { return cmp.Compare(d.Address, a) })
	if !ok {
		return nil
	}
	return &m.PCI[i]
}

// Accelerator finds a device by its ID or address, nil for none.
func (m *Machine) Accelerator(name string) *Accelerator {
	for i := range m.Accelerators {
		if a := &m.Accelerators[i]; a.ID == name || a.Address == name {
			return a
		}
	}
	return nil
}

// fact notes where something of a device was read.
func (s *scan) fact(a *Accelerator, name, value, file string) {
	if value == "" {
		return
	}
	key := a.ID
	if key == "" {
		key = a.Address
	}
	s.m.Facts[key] = append(s.m.Facts[key], Fact{Name: name, Value: value, Path: file})
}
