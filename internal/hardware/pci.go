package hardware

import (
	"cmp"
	"path"
	"slices"
	"strconv"
	"strings"
)

const pciDir = "/sys/bus/pci/devices"

// PCIDevice is one PCI function. Facts come from its sysfs directory; see
// Documentation/ABI/testing/sysfs-bus-pci.
type PCIDevice struct {
	Address string `json:"address"` // domain:bus:device.function
	Class   string `json:"class"`   // six hexadecimal digits: class, subclass, interface
	Vendor  string `json:"vendor"`  // four hexadecimal digits
	Device  string `json:"device"`  // four hexadecimal digits
	// SubVendor and SubDevice name the board.
	SubVendor string `json:"subVendor,omitempty"`
	SubDevice string `json:"subDevice,omitempty"`
	Name      string `json:"name,omitempty"` // from the table of identities
	Driver    string `json:"driver,omitempty"`
	// Parent is the bridge above, empty below a root. Root is the root bus
	// ("pci0000:00"), the resource.kubernetes.io/pcieRoot of the device.
	Parent string `json:"parent,omitempty"`
	Root   string `json:"root,omitempty"`
	Bridge bool   `json:"bridge,omitempty"`
	// Node is the device's NUMA node, -1 where the firmware names none.
	Node int `json:"node"`
	// LocalCPUs are the CPUs nearest to the device and LocalNodes the nodes
	// among them; all of the machine's where the firmware names none.
	LocalCPUs  Set `json:"localCPUs"`
	LocalNodes Set `json:"localNodes"`
	// Link is the connection towards the root now, Best what it could be.
	Link *PCILink `json:"link,omitempty"`
	Best *PCILink `json:"best,omitempty"`
	// Degraded: the link runs below what both of its ends can do.
	Degraded   bool   `json:"degraded,omitempty"`
	IOMMUGroup string `json:"iommuGroup,omitempty"`
	// ACS: the bridge keeps peers apart (access control services).
	ACS bool `json:"acs,omitempty"`
	// VFs is the number of SR-IOV virtual functions on, MaxVFs what could
	// be; PhysicalFunction is set on a virtual function.
	VFs              int    `json:"vfs,omitempty"`
	MaxVFs           int    `json:"maxVFs,omitempty"`
	PhysicalFunction string `json:"physicalFunction,omitempty"`
	Slot             string `json:"slot,omitempty"`
}

// PCILink is a PCI Express link.
type PCILink struct {
	GTs   float64 `json:"gts"`   // giga-transfers per second and lane
	Width int     `json:"width"` // lanes
}

// BytesPerSecond is what the link carries in one direction, line coding off.
func (l PCILink) BytesPerSecond() float64 {
	return l.GTs * 1e9 / 8 * encoding(l.GTs) * float64(l.Width)
}

// encoding is the share of the line rate that is data: 8b/10b up to 5 GT/s,
// 128b/130b up to 32 GT/s, flits (PAM4) above. PCI Express Base 6.0, 4.2.
func encoding(gts float64) float64 {
	switch {
	case gts <= 5:
		return 0.8
	case gts <= 32:
		return 128.0 / 130
	}
	return 242.0 / 256
}

// pci reads the PCI tree.
func (s *scan) pci() {
	for _, name := range s.dir(pciDir) {
		if address, ok := pciAddress(name); ok && address == name {
			s.m.PCI = append(s.m.PCI, s.pciDevice(address))
		}
	}
	slices.SortFunc(s.m.PCI, func(a, b PCIDevice) int { return cmp.Compare(a.Address, b.Address) })
	byAddress := map[string]*PCIDevice{}
	for i := range s.m.PCI {
		byAddress[s.m.PCI[i].Address] = &s.m.PCI[i]
	}
	for i := range s.m.PCI {
		d := &s.m.PCI[i]
		s.locality(d, byAddress)
		if up := byAddress[d.Parent]; d.Link != nil && d.Best != nil {
			d.Degraded = degraded(*d.Link, *d.Best, up)
		}
	}
	s.slots(byAddress)
}

func (s *scan) pciDevice(address string) PCIDevice {
	dir := pciDir + "/" + address + "/"
	d := PCIDevice{Address: address, Node: -1}
	d.Class = hexDigits(s.hex(dir+"class"), 6)
	d.Vendor = hexDigits(s.hex(dir+"vendor"), 4)
	d.Device = hexDigits(s.hex(dir+"device"), 4)
	if board := s.hex(dir + "subsystem_vendor"); board != 0 {
		d.SubVendor = hexDigits(board, 4)
		d.SubDevice = hexDigits(s.hex(dir+"subsystem_device"), 4)
	}
	d.Bridge = strings.HasPrefix(d.Class, "0604") || strings.HasPrefix(d.Class, "0609")
	d.Root, d.Parent = pciAncestors(s.target(pciDir + "/" + address))
	if n, ok := s.integer(dir + "numa_node"); ok && n >= 0 {
		if _, known := s.node[n]; known {
			d.Node = n
		}
	}
	if driver := s.target(dir + "driver"); driver != "" {
		d.Driver = path.Base(driver)
	}
	if group := s.target(dir + "iommu_group"); group != "" {
		d.IOMMUGroup = path.Base(group)
	}
	if physical := s.target(dir + "physfn"); physical != "" {
		d.PhysicalFunction = path.Base(physical)
	}
	d.Link = s.pciLink(dir + "current_link_")
	d.Best = s.pciLink(dir + "max_link_")
	if s.exists(dir + "sriov_totalvfs") {
		d.MaxVFs, _ = s.positive(dir + "sriov_totalvfs")
		d.VFs, _ = s.positive(dir + "sriov_numvfs")
	}
	s.configSpace(&d, dir+"config")
	return d
}

// pciLink reads speed ("16.0 GT/s PCIe") and width of a link; nil where the
// device has none or does not tell.
func (s *scan) pciLink(prefix string) *PCILink {
	text, ok := s.text(prefix + "speed")
	if !ok {
		return nil
	}
	number, _, _ := strings.Cut(text, " ")
	gts, err := strconv.ParseFloat(number, 64)
	width, ok := s.positive(prefix + "width")
	if err != nil || !ok || !(gts > 0 && gts < 1000) || width > 64 {
		return nil
	}
	return &PCILink{GTs: gts, Width: width}
}

// locality finds the CPUs and nodes nearest to a device: what it says itself,
// else what the bridges above say, else the whole machine.
func (s *scan) locality(d *PCIDevice, byAddress map[string]*PCIDevice) {
	for at, hops := d, 0; at != nil && hops < 64; at, hops = byAddress[at.Parent], hops+1 {
		cpus, ok := s.mask(path.Join(pciDir, at.Address, "local_cpus"))
		if !ok {
			cpus, ok = s.list(path.Join(pciDir, at.Address, "local_cpulist"))
		}
		if cpus = cpus.And(s.m.Online); ok && !cpus.Empty() {
			d.LocalCPUs = cpus
			break
		}
	}
	if d.LocalCPUs.Empty() && d.Node >= 0 {
		d.LocalCPUs = s.m.Nodes[s.node[d.Node]].CPUs
	}
	if d.LocalCPUs.Empty() {
		d.LocalCPUs = s.m.Online
	}
	for _, n := range s.m.Nodes {
		if n.CPUs.Meets(d.LocalCPUs) && n.Memory != "GPUMemory" {
			d.LocalNodes.Add(n.ID)
		}
	}
}

// degraded reports a link below what both ends can do. Speed alone is no
// fault: idle devices slow their link down to save power.
func degraded(now, best PCILink, up *PCIDevice) bool {
	width := best.Width
	if up != nil && up.Best != nil {
		width = min(width, up.Best.Width)
	}
	return now.Width < width
}

// slots names the physical slots, /sys/bus/pci/slots/NAME/address.
func (s *scan) slots(byAddress map[string]*PCIDevice) {
	const dir = "/sys/bus/pci/slots"
	for _, slot := range s.dir(dir) {
		address, ok := s.text(path.Join(dir, slot, "address"))
		if !ok || strings.Count(address, ":") != 2 {
			continue
		}
		for function := range 8 {
			if d := byAddress[address+"."+strconv.Itoa(function)]; d != nil {
				d.Slot = slot
			}
		}
	}
}

// pciAncestors reads root bus and nearest bridge off a device's real path,
// /sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0.
func pciAncestors(real string) (root, parent string) {
	parts := strings.Split(real, "/")
	for i, part := range parts {
		if strings.HasPrefix(part, "pci") && strings.Contains(part, ":") && root == "" {
			root = part
		}
		if _, ok := pciAddress(part); ok && i < len(parts)-1 {
			parent = part
		}
	}
	return root, parent
}

// lastPCI is the last PCI address within a path, empty where there is none.
func lastPCI(p string) string {
	parts := strings.Split(p, "/")
	for _, part := range slices.Backward(parts) {
		if address, ok := pciAddress(part); ok {
			return address
		}
	}
	return ""
}

// pciAddress reads "0000:3b:00.0", also with a domain of up to eight digits
// (VMD and Hyper-V) or none, and returns it in the kernel's own spelling.
func pciAddress(text string) (string, bool) {
	head, function, ok := strings.Cut(text, ".")
	parts := strings.Split(head, ":")
	if len(parts) == 2 {
		parts = append([]string{"0000"}, parts...)
	}
	if !ok || len(parts) != 3 || len(parts[0]) < 4 || len(parts[0]) > 8 || len(parts[1]) != 2 || len(parts[2]) != 2 || len(function) != 1 {
		return "", false
	}
	for _, p := range append(parts, function) {
		if _, err := strconv.ParseUint(p, 16, 32); err != nil {
			return "", false
		}
	}
	return strings.ToLower(strings.Join(parts, ":") + "." + function), true
}

func hexDigits(n uint64, digits int) string {
	text := strconv.FormatUint(n, 16)
	if len(text) > digits {
		text = text[len(text)-digits:]
	}
	return strings.Repeat("0", digits-len(text)) + text
}

// ClassName is the name of a PCI class that matters here; others stay numbers.
// PCI Code and ID Assignment Specification 1.11.
func (d *PCIDevice) ClassName() string {
	names := map[string]string{"0106": "SATA", "0108": "NVMe", "0200": "Ethernet", "0207": "InfiniBand", "0280": "network", "0300": "VGA", "0302": "3D",
		"0380": "display", "0403": "audio", "0600": "host bridge", "0601": "ISA bridge", "0604": "PCI bridge", "0609": "PCI bridge", "0680": "bridge", "0806": "IOMMU",
		"0b40": "co-processor", "0c03": "USB", "0c05": "SMBus", "1200": "accelerator", "1180": "signal processing"}
	if len(d.Class) >= 4 {
		if name, ok := names[d.Class[:4]]; ok {
			return name
		}
	}
	return "class " + d.Class
}
