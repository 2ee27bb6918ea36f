package hardware

import (
	"cmp"
	"path"
	"slices"
	"strconv"
	"strings"
)

// daxNodes finds the nodes that are a DAX device's memory given to the kernel
// (the kmem driver): persistent memory, special-purpose memory or CXL.
func (s *scan) daxNodes() {
	const dir = "/sys/bus/dax/devices"
	for _, name := range s.dir(dir) {
		if !s.exists("/sys/bus/dax/drivers/kmem/" + name) {
			continue
		}
		id, ok := s.integer(path.Join(dir, name, "target_node"))
		i, known := s.node[id]
		if !ok || !known {
			continue
		}
		parent := path.Dir(s.target(path.Join(dir, name)))
		n := &s.m.Nodes[i]
		n.Device, n.Memory = name, "SPM"
		if strings.Contains(parent, "ndbus") {
			n.Memory = "NVM"
		}
		if n.CXL = s.cxlDevices(parent); n.CXL != nil {
			n.Memory = strings.Replace("CXL-"+n.Memory, "CXL-SPM", "CXL-DRAM", 1)
		}
	}
}

// cxlDevices follows a CXL region to the PCI devices that make it up.
// See Documentation/ABI/testing/sysfs-bus-cxl.
func (s *scan) cxlDevices(parent string) []string {
	const bus = "/sys/bus/cxl/devices/"
	_, rest, ok := strings.Cut(parent, "/region")
	if !ok {
		return nil
	}
	region, _, _ := strings.Cut(rest, "/")
	var devices []string
	for way := range 16 {
		decoder, ok := s.text(bus + "region" + region + "/target" + strconv.Itoa(way))
		if !ok || strings.ContainsAny(decoder, "/.") && !strings.HasPrefix(decoder, "decoder") {
			break
		}
		endpoint := path.Base(path.Dir(s.target(bus + decoder)))
		if !strings.HasPrefix(endpoint, "endpoint") {
			break
		}
		if address := lastPCI(s.target(bus + endpoint + "/uport")); address != "" {
			devices = append(devices, address)
		}
	}
	return devices
}

// tier is a group of nodes with memory of one make and like speed.
type tier struct {
	memory    string
	nodes     []*Node
	low, high int // bandwidth in MB/s
}

// classifyMemory tells DRAM from HBM where the firmware gives bandwidths: of
// two kinds of memory that nobody named, the one more than twice as fast is
// HBM. With less evidence than that, nodes stay unnamed.
func (s *scan) classifyMemory() {
	tiers := memoryTiers(s.m.Nodes)
	if len(tiers) < 2 {
		return
	}
	var unnamed, special []*tier
	for i := range tiers {
		switch tiers[i].memory {
		case "":
			unnamed = append(unnamed, &tiers[i])
		case "SPM":
			special = append(special, &tiers[i])
		case "DRAM", "HBM":
			return
		}
	}
	switch {
	case len(unnamed) == 2 && len(special) == 0:
		nameByBandwidth(unnamed[0], unnamed[1])
	case len(unnamed) == 1 && len(special) == 1:
		nameByBandwidth(unnamed[0], special[0])
	}
}

func nameByBandwidth(slow, fast *tier) {
	if slow.low > fast.low {
		slow, fast = fast, slow
	}
	if slow.low == 0 || fast.low <= 2*slow.high {
		return
	}
	for _, n := range slow.nodes {
		n.Memory = "DRAM"
	}
	for _, n := range fast.nodes {
		n.Memory = "HBM"
	}
}

// memoryTiers groups nodes by what they are said to be made of and splits a
// group where bandwidth or latency jump by more than a tenth.
func memoryTiers(nodes []Node) []tier {
	order := make([]*Node, len(nodes))
	for i := range nodes {
		order[i] = &nodes[i]
	}
	slices.SortStableFunc(order, func(a, b *Node) int {
		return cmp.Or(cmp.Compare(a.Memory, b.Memory), cmp.Compare(b.bandwidth(), a.bandwidth()))
	})
	var tiers []tier
	for i, n := range order {
		if i == 0 || order[i-1].Memory != n.Memory || jump(order[i-1].bandwidth(), n.bandwidth()) ||
			jump(order[i-1].latency(), n.latency()) {
			tiers = append(tiers, tier{memory: n.Memory})
		}
		t := &tiers[len(tiers)-1]
		t.nodes = append(t.nodes, n)
		// Sorted fastest first: the first is the high end, the last the low.
		// Nodes of unknown bandwidth come last and go with the slowest.
		t.high = max(t.high, n.bandwidth())
		t.low = cmp.Or(n.bandwidth(), t.low)
	}
	return tiers
}

// bandwidth is the mean of reading and writing, 0 unless both are known.
func (n *Node) bandwidth() int {
	if n.ReadBandwidth == 0 || n.WriteBandwidth == 0 {
		return 0
	}
	return (n.ReadBandwidth + n.WriteBandwidth) / 2
}

// latency is the mean of reading and writing, 0 unless both are known.
func (n *Node) latency() int {
	if n.ReadLatency == 0 || n.WriteLatency == 0 {
		return 0
	}
	return (n.ReadLatency + n.WriteLatency) / 2
}

func jump(a, b int) bool {
	if a == 0 || b == 0 {
		return false
	}
	return max(a, b)*10 > min(a, b)*11
}

// xeonPhi names the stacked memory of a Xeon Phi and, where hwloc's boot
// service left a note of it, its use as a cache in front of the other memory.
func (s *scan) xeonPhi() {
	var near, far []*Node
	for i := range s.m.Nodes {
		switch n := &s.m.Nodes[i]; {
		case n.Own.Empty() && n.Memory == "":
			near = append(near, n)
		case n.Memory == "":
			far = append(far, n)
		}
	}
	s.nearMemoryCache(far)
	for _, n := range near {
		n.Memory = "MCDRAM"
		if n.CPUs.Empty() && len(far) == 1 { // one cluster: near to all of it
			n.CPUs = far[0].CPUs
		}
	}
	for _, n := range far {
		if len(near) > 0 {
			n.Memory = "DRAM"
		}
	}
}

// nearMemoryCache adds the part of the stacked memory that is a cache.
func (s *scan) nearMemoryCache(far []*Node) {
	text, _ := s.text("/var/run/hwloc/knl_memoryside_cache")
	values := map[string]int{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if n, err := strconv.Atoi(value); err == nil && n > 0 {
			values[name] = n
		}
	}
	if values["cache_size"] == 0 {
		return
	}
	for _, n := range far {
		s.m.Caches = append(s.m.Caches, Cache{Level: 1, Kind: MemorySide, Size: Bytes(values["cache_size"]), LineSize: values["line_size"],
			Ways: values["associativity"], CPUs: n.CPUs, Node: &n.ID})
	}
}
