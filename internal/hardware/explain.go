package hardware

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Explain tells where each fact of a device was read: an accelerator, PCI
// device, interface, disk, NUMA node ("node1") or CPU ("cpu3"). It returns
// ErrUnknown for other names.
func (m *Machine) Explain(name string) ([]Fact, error) {
	if a := m.Accelerator(name); a != nil {
		facts := append([]Fact{{Name: "health", Value: strings.Join(append([]string{a.Health.State}, a.Health.Reasons...), ": ")}}, m.Facts[a.ID]...)
		for _, why := range a.Missing {
			facts = append(facts, Fact{Name: "missing", Value: why})
		}
		if d := m.Device(a.Function()); d != nil {
			for _, f := range d.facts() {
				if !slices.Contains(facts, f) { // what the accelerator's own reader took from there
					facts = append(facts, f)
				}
			}
		}
		return facts, nil
	}
	if address, ok := pciAddress(name); ok {
		if d := m.Device(address); d != nil {
			return d.facts(), nil
		}
	}
	for _, i := range m.Interfaces {
		if i.Name == name {
			return m.explainInterface(i), nil
		}
	}
	for _, d := range m.Disks {
		if d.Name == name {
			return m.explainDisk(d), nil
		}
	}
	for i := range m.Nodes {
		if name == "node"+strconv.Itoa(m.Nodes[i].ID) {
			return m.Nodes[i].facts(), nil
		}
	}
	for i := range m.CPUs {
		if name == "cpu"+strconv.Itoa(m.CPUs[i].ID) {
			return m.explainCPU(&m.CPUs[i]), nil
		}
	}
	return nil, fmt.Errorf("%q: %w", clip(name), ErrUnknown)
}

// factList collects facts that have a value.
type factList []Fact

func (l *factList) add(name, value, file string) {
	if value != "" {
		*l = append(*l, Fact{name, value, file})
	}
}

func (d *PCIDevice) facts() []Fact {
	dir := pciDir + "/" + d.Address
	var l factList
	l.add("class", d.Class, dir+"/class")
	l.add("vendor", d.Vendor, dir+"/vendor")
	l.add("device", d.Device, dir+"/device")
	l.add("board", strings.Trim(d.SubVendor+":"+d.SubDevice, ":"), dir+"/subsystem_device")
	l.add("driver", d.Driver, dir+"/driver")
	l.add("root", d.Root, dir+" (link)")
	l.add("bridge above", d.Parent, dir+" (link)")
	if d.Node >= 0 {
		l.add("numa node", strconv.Itoa(d.Node), dir+"/numa_node")
	}
	l.add("local cpus", d.LocalCPUs.String(), dir+"/local_cpus")
	if d.Link != nil {
		l.add("link", d.Link.String(), dir+"/current_link_width, current_link_speed")
	}
	if d.Best != nil {
		l.add("best link", d.Best.String(), dir+"/max_link_width, max_link_speed")
	}
	l.add("iommu group", d.IOMMUGroup, dir+"/iommu_group")
	if d.MaxVFs > 0 {
		l.add("virtual functions", fmt.Sprintf("%d of %d", d.VFs, d.MaxVFs), dir+"/sriov_numvfs, sriov_totalvfs")
	}
	l.add("physical function", d.PhysicalFunction, dir+"/physfn")
	l.add("slot", d.Slot, "/sys/bus/pci/slots/"+d.Slot+"/address")
	return l
}

// String is a link in words: "x16 at 32 GT/s, 63.0 GB/s".
func (l PCILink) String() string {
	return fmt.Sprintf("x%d at %g GT/s, %.1f GB/s", l.Width, l.GTs, l.BytesPerSecond()/1e9)
}

func (m *Machine) explainInterface(i Interface) []Fact {
	dir := "/sys/class/net/" + i.Name
	var l factList
	l.add("state", i.State, dir+"/operstate")
	if i.Mbps > 0 {
		l.add("speed", strconv.Itoa(i.Mbps)+" Mb/s", dir+"/speed")
	}
	l.add("rdma device", i.RDMA, pciDir+"/"+i.Address+"/infiniband")
	l.add("pci device", i.Address, dir+" (link)")
	if d := m.Device(i.Address); d != nil {
		l = append(l, d.facts()...)
	}
	return l
}

func (m *Machine) explainDisk(k Disk) []Fact {
	dir := "/sys/class/block/" + k.Name
	var l factList
	l.add("size", k.Size.String(), dir+"/size")
	l.add("model", k.Model, dir+"/device/model")
	if k.Spins {
		l.add("spins", "true", dir+"/queue/rotational")
	}
	l.add("pci device", k.Address, dir+" (link)")
	if d := m.Device(k.Address); d != nil {
		l = append(l, d.facts()...)
	}
	return l
}

func (n *Node) facts() []Fact {
	var l factList
	at := func(file string) string { return nodePath(n.ID, file) }
	l.add("memory", n.Bytes.String(), at("meminfo"))
	l.add("own cpus", n.Own.String(), at("cpumap"))
	if !n.CPUs.Equal(n.Own) {
		l.add("nearest cpus", n.CPUs.String(), at("access1/initiators")+", or distance")
	}
	l.add("kind", n.Memory, "bandwidths, /sys/bus/dax/devices or /proc/driver/nvidia/gpus")
	l.add("device", n.Device, "/sys/bus/dax/devices or /proc/driver/nvidia/gpus")
	l.add("distance", strings.Trim(strings.Join(strings.Fields(fmt.Sprint(n.Distance)), " "), "[]"), at("distance"))
	for _, v := range []struct {
		name, file, unit string
		value            int
	}{
		{"read bandwidth", "read_bandwidth", "MB/s", n.ReadBandwidth}, {"write bandwidth", "write_bandwidth", "MB/s", n.WriteBandwidth},
		{"read latency", "read_latency", "ns", n.ReadLatency}, {"write latency", "write_latency", "ns", n.WriteLatency},
	} {
		if v.value > 0 {
			l.add(v.name, strconv.Itoa(v.value)+" "+v.unit, at("access1/initiators/"+v.file))
		}
	}
	for _, h := range n.HugePages {
		l.add("huge pages", fmt.Sprintf("%d of %s, %d free", h.Total, h.Size, h.Free), at(fmt.Sprintf("hugepages/hugepages-%dkB", h.Size>>10)))
	}
	return l
}

func (m *Machine) explainCPU(c *CPU) []Fact {
	var l factList
	at := func(file string) string { return cpuPath(c.ID, file) }
	l.add("package", strconv.Itoa(c.Package), at("topology/physical_package_id"))
	if c.Die >= 0 {
		l.add("die", strconv.Itoa(c.Die), at("topology/die_id"))
	}
	if c.Cluster >= 0 {
		l.add("cluster", strconv.Itoa(c.Cluster), at("topology/cluster_id"))
	}
	if c.Core >= 0 && c.Core < len(m.Cores) {
		core := m.Cores[c.Core]
		l.add("core", strconv.Itoa(core.ID), at("topology/core_id"))
		l.add("threads of the core", core.CPUs.String(), at("topology/core_cpus"))
	}
	if c.Node >= 0 {
		l.add("numa node", strconv.Itoa(c.Node), nodePath(c.Node, "cpumap"))
	}
	if c.Kind >= 0 && c.Kind < len(m.Kinds) {
		k := m.Kinds[c.Kind]
		l.add("kind", k.Name, "the measures below, compared")
		if k.MaxMHz > 0 {
			l.add("highest clock", strconv.Itoa(k.MaxMHz)+" MHz", at("cpufreq/cpuinfo_max_freq"))
		}
		if k.Capacity > 0 {
			l.add("capacity", strconv.Itoa(k.Capacity), at("cpu_capacity"))
		}
		l.add("core type", k.CoreType, path.Join("/sys/devices", "cpu_core, cpu_atom or cpu_lowpower"))
	}
	for _, cache := range m.Caches {
		if cache.Kind != MemorySide && cache.CPUs.Has(c.ID) {
			l.add(cache.Name(), fmt.Sprintf("%s, shared by cpus %s", cache.Size, cache.CPUs), at("cache/index*/size, shared_cpu_map"))
		}
	}
	l.add("allowed", strconv.FormatBool(c.Allowed), "the cpuset of the process's cgroup")
	return l
}
