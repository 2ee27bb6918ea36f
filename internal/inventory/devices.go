package inventory

import (
	"slices"
	"strings"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/place"
)

// Domain is where selectors find what is known of every kind of device:
// device.attributes["oscine.dev"].kind and the like. What a vendor's own DRA
// driver publishes stands under that driver's name as well.
const Domain = "oscine.dev"

// How many workloads may share a GPU at once: CUDA MPS serves 48 clients; the
// other drivers slice time, where more than a few only wait.
const (
	mpsClients = 48
	timeSlices = 16
)

// devices lists the accelerators and network interfaces that can be given out.
func devices(m *hardware.Machine) []place.Device {
	var all []place.Device
	for i := range m.Accelerators {
		if a := &m.Accelerators[i]; a.Usable() && !cut(m, a.Function()) && !divided(a) {
			all = append(all, accelerator(m, a))
		}
	}
	for _, n := range m.Interfaces {
		if cut(m, n.Address) {
			continue
		}
		d := place.Device{ID: n.Name, Driver: "nic." + Domain, NUMA: nodeOf(m, n.Node), Path: pciPath(m, n.Address)}
		d.Attributes = map[string]any{
			Domain + "/kind": "nic", Domain + "/name": n.Name, Domain + "/driver": n.Driver,
			Domain + "/mbps": int64(n.Mbps), Domain + "/rdma": n.RDMA != "",
		}
		standard(&d, n.Address)
		all = append(all, d)
	}
	for i := range m.PCI {
		p := &m.PCI[i]
		taken := slices.ContainsFunc(m.Interfaces, func(n hardware.Interface) bool { return n.Address == p.Address })
		if !strings.HasPrefix(p.Class, networkClass) || taken || cut(m, p.Address) {
			continue
		}
		d := place.Device{ID: p.Address, Driver: "nic." + Domain, NUMA: nodeOf(m, p.Node), Path: pciPath(m, p.Address)}
		d.Attributes = map[string]any{Domain + "/kind": "nic", Domain + "/driver": p.Driver}
		standard(&d, p.Address)
		all = append(all, d)
	}
	return all
}

// cut reports whether a PCI function is given out as its SR-IOV virtual
// functions, so that nobody can have the whole of it beside them.
func cut(m *hardware.Machine, address string) bool {
	d := m.Device(address)
	return d != nil && d.VFs > 0
}

// divided reports whether a device is cut into partitions by somebody else, and
// nobody here can tell which parts are left.
func divided(a *hardware.Accelerator) bool { return len(a.Partitions) > 0 && len(a.Profiles) == 0 }

// State is what placement can give out of a machine on which nothing of ours
// runs: partitions that are there already are somebody else's.
func State(m *hardware.Machine, name string) (*place.State, error) {
	s, err := place.NewState(Machine(m, name))
	if err != nil {
		return nil, err
	}
	for i := range m.Accelerators {
		s.Existing(m.Accelerators[i].ID, Partitions(&m.Accelerators[i]))
	}
	return s, nil
}

// nodeOf is the NUMA node of a device: the machine's, where there is only one
// and the firmware says nothing; -1 if unknown.
func nodeOf(m *hardware.Machine, node int) int {
	if node >= 0 {
		return node
	}
	only := -1
	for _, n := range m.Nodes {
		switch {
		case n.Memory == gpuMemory:
		case only >= 0:
			return -1
		default:
			only = n.ID
		}
	}
	return only
}

// networkClass begins the PCI class of network controllers: Ethernet (0200),
// InfiniBand (0207) and others. One without an interface, as behind VFIO or in
// a topology file, is given out by its address.
const networkClass = "02"

func accelerator(m *hardware.Machine, a *hardware.Accelerator) place.Device {
	d := place.Device{
		ID: a.ID, Driver: driverName(a), NUMA: nodeOf(m, a.Node), Path: pciPath(m, a.Function()),
		Attributes: map[string]any{}, Capacity: map[string]int64{}, Memory: amount(a.Memory),
	}
	for name, v := range a.Attributes {
		value, ok := plain(v)
		if !ok {
			continue
		}
		d.Attributes[name] = value
		if !strings.Contains(name, "/") {
			d.Attributes[Domain+"/"+name] = value
		}
	}
	for name, v := range map[string]string{"kind": a.Kind, "vendor": a.Vendor, "model": a.Model, "architecture": a.Architecture} {
		if v != "" {
			d.Attributes[Domain+"/"+name] = v
		}
	}
	if a.Memory > 0 {
		d.Capacity["memory"], d.Capacity[Domain+"/memory"] = amount(a.Memory), amount(a.Memory)
	}
	standard(&d, "")
	if a.Bus == "pci" {
		standard(&d, a.Function())
	}
	if a.Kind == "gpu" {
		d.Shares = timeSlices
	}
	if a.Attributes["mps"] == true { // as the driver's program found
		d.Shares, d.MPS = mpsClients, true
	}
	d.Profiles = profiles(a)
	return d
}

// driverName is the DRA driver that serves such a device in a cluster, where
// there is one.
func driverName(a *hardware.Accelerator) string {
	vendor := strings.ToLower(a.Vendor)
	for _, known := range []string{"nvidia", "amd", "intel"} {
		if a.Kind == "gpu" && strings.Contains(vendor, known) {
			return "gpu." + known + ".com"
		}
	}
	return a.Kind + "." + Domain
}

// standard adds the attributes that Kubernetes standardises.
func standard(d *place.Device, address string) {
	if d.NUMA >= 0 {
		d.Attributes[hardware.AttributeNUMANode] = int64(d.NUMA)
	}
	if len(d.Path) > 0 {
		d.Attributes[hardware.AttributePCIeRoot] = d.Path[0]
	}
	if address != "" {
		d.Attributes[hardware.AttributePCIBusID] = address
	}
}

// plain turns a value into one that selectors can compare.
func plain(v any) (any, bool) {
	switch v := v.(type) {
	case string, bool, int64:
		return v, true
	case int:
		return int64(v), true
	case uint64:
		return int64(min(v, 1<<62)), true
	case hardware.Bytes:
		return int64(min(v, 1<<62)), true
	case float64:
		if v == float64(int64(v)) {
			return int64(v), true
		}
	}
	return nil, false
}

// amount is an amount of memory as placement counts it, however large a driver
// says it is.
func amount(b hardware.Bytes) int64 { return int64(min(b, 1<<60)) }

// pciPath lists the root and the bridges above a PCI device, root first.
func pciPath(m *hardware.Machine, address string) []string {
	var path []string
	root := ""
	for range 32 { // deeper trees than any that PCI allows
		i := slices.IndexFunc(m.PCI, func(d hardware.PCIDevice) bool { return d.Address == address })
		if i < 0 {
			break
		}
		if root = m.PCI[i].Root; m.PCI[i].Parent == "" {
			break
		}
		address = m.PCI[i].Parent
		path = append(path, address)
	}
	if root == "" {
		return nil
	}
	slices.Reverse(path)
	return append([]string{root}, path...)
}

// links lists the direct links between usable devices.
func links(m *hardware.Machine) []place.Link {
	id := func(name string) string {
		for _, a := range m.Accelerators {
			if a.Address == name {
				return a.ID
			}
		}
		return name
	}
	var all []place.Link
	for _, l := range m.Links {
		all = append(all, place.Link{A: id(l.A), B: id(l.B), Kind: l.Kind, Count: max(l.Count, 1)})
	}
	return all
}

// profiles are the partitions that the driver's program can make and remove.
// What only the kernel reports, such as a mode for the whole device, is none.
func profiles(a *hardware.Accelerator) []place.Profile {
	var all []place.Profile
	for _, p := range a.Profiles[:min(len(a.Profiles), place.MaxProfiles)] {
		all = append(all, place.Profile{Name: p.Name, Slices: p.Slices, Starts: p.Starts, Memory: amount(p.Memory), Compute: p.Compute, Instances: instances(&p)})
	}
	return all
}

// instances is how many partitions of a profile there may be at once. Maps of
// earlier releases don't tell; of those with a GPU's media engines, which it has
// but once, there is one all the same (NVIDIA, Multi-Instance GPU user guide,
// "MIG device profiles").
func instances(p *hardware.PartitionProfile) int {
	if p.Instances == 0 && (strings.HasSuffix(p.Name, "+me") || strings.HasSuffix(p.Name, "+me.all")) {
		return 1
	}
	return p.Instances
}

// Partitions are those that a device is cut into now.
func Partitions(a *hardware.Accelerator) []place.DeviceGrant {
	var all []place.DeviceGrant
	for _, p := range a.Partitions {
		all = append(all, place.DeviceGrant{ID: a.ID, Profile: p.Profile, Start: p.Start})
	}
	return all
}
