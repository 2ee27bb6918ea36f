package hardware

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const kfdDir = "/sys/class/kfd/kfd/topology/nodes"

// kfdNode is one node of AMD's compute topology: a CPU, a GPU, or one of the
// logical GPUs that a GPU is divided into (its compute partitions).
type kfdNode struct {
	id   int
	gpu  string // address in the map, empty for a CPU
	file string

	render       uint64 // minor of its render node
	architecture string
	memory       Bytes
}

// Link types of the HSA thunk, include/uapi/linux/kfd_sysfs.h.
const (
	kfdPCIe = 2
	kfdXGMI = 11
)

// kfdNodes reads AMD's compute topology. A logical GPU has the location of its
// PCI function with its own number in place of the function's; the kernel's
// kfd_topology_add_device does so.
func (s *scan) kfdNodes() []kfdNode {
	var nodes []kfdNode
	for _, id := range s.numbered(kfdDir, "").IDs() {
		n := kfdNode{id: id, file: kfdDir + "/" + strconv.Itoa(id) + "/properties"}
		p, ok := s.properties(n.file)
		if !ok {
			continue
		}
		if p["simd_count"] > 0 {
			location := p["location_id"]
			slot := fmt.Sprintf("%04x:%02x:%02x.", p["domain"]&0xffffffff, location>>8&0xff, location>>3&0x1f)
			function := strconv.FormatUint(location&7, 16)
			n.gpu = slot + function
			if s.m.Accelerator(n.gpu) == nil && s.m.Accelerator(slot+"0") != nil {
				n.gpu = slot + "0#" + function
			}
			n.render = p["drm_render_minor"]
			if v := p["gfx_target_version"]; v > 0 {
				n.architecture = fmt.Sprintf("gfx%d%x%x", v/10000, v/100%100, v%100)
			}
			n.memory = s.kfdMemory(id)
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// kfdMemory is the memory of a GPU node: its banks of frame buffer, visible to
// the host (1 in HSA_HEAPTYPE is public, 2 private).
func (s *scan) kfdMemory(id int) Bytes {
	var sum Bytes
	banks := kfdDir + "/" + strconv.Itoa(id) + "/mem_banks"
	for _, bank := range s.numbered(banks, "").IDs() {
		if b, ok := s.properties(banks + "/" + strconv.Itoa(bank) + "/properties"); ok && (b["heap_type"] == 1 || b["heap_type"] == 2) {
			sum += Bytes(b["size_in_bytes"])
		}
	}
	return sum
}

// splitByKFD gives each logical GPU a place of its own in the map and all GPUs
// what the compute topology knows of them.
func (s *scan) splitByKFD(nodes []kfdNode) {
	parts := map[string]int{}
	for _, n := range nodes {
		parts[function(n.gpu)]++
	}
	for _, n := range nodes {
		whole := s.m.Accelerator(function(n.gpu))
		if n.gpu == "" || whole == nil {
			continue
		}
		a := whole
		if n.gpu != whole.Address {
			part := *whole
			part.Address, part.DeviceNodes = n.gpu, nil
			if n.render > 0 {
				part.DeviceNodes = []string{fmt.Sprintf("/dev/dri/renderD%d", n.render), "/dev/kfd"}
			}
			s.m.Facts[part.Address] = slices.Clone(s.m.Facts[whole.Address])
			s.m.Accelerators = append(s.m.Accelerators, part)
			a = &s.m.Accelerators[len(s.m.Accelerators)-1]
			s.fact(a, "compute partition", fmt.Sprintf("one of %d", parts[function(n.gpu)]), n.file)
		}
		if n.architecture != "" {
			a.Architecture = n.architecture
			s.fact(a, "architecture", a.Architecture, n.file)
		}
		if n.memory > 0 && (a.Memory == 0 || parts[function(n.gpu)] > 1) {
			a.Memory = n.memory
			s.fact(a, "memory", a.Memory.String(), kfdDir+"/"+strconv.Itoa(n.id)+"/mem_banks")
		}
	}
}

func function(address string) string {
	return (&Accelerator{Address: address}).Function()
}

// kfdLinks reads the xGMI links between GPUs, and between the parts of one.
func (s *scan) kfdLinks(nodes []kfdNode) {
	byID := map[int]kfdNode{}
	for _, n := range nodes {
		byID[n.id] = n
	}
	for _, from := range nodes {
		if from.gpu == "" {
			continue
		}
		for _, kind := range []string{"io_links", "p2p_links"} {
			dir := kfdDir + "/" + strconv.Itoa(from.id) + "/" + kind
			for _, link := range s.numbered(dir, "").IDs() {
				s.kfdLink(dir+"/"+strconv.Itoa(link)+"/properties", from, byID)
			}
		}
	}
}

func (s *scan) kfdLink(file string, from kfdNode, nodes map[int]kfdNode) {
	p, ok := s.properties(file)
	to, known := nodes[int(min(p["node_to"], MaxIndex))]
	if !ok || !known || to.gpu == "" || p["type"] != kfdXGMI || from.gpu >= to.gpu {
		return // PCIe paths follow from the PCI tree; each pair counts once
	}
	l := Link{A: s.nameOf(from.gpu), B: s.nameOf(to.gpu), Kind: "xgmi", Count: 1, BytesPerSecond: float64(p["max_bandwidth"]) * 1e6, Source: file}
	for _, other := range s.m.Links {
		if other.A == l.A && other.B == l.B {
			return
		}
	}
	s.m.Links = append(s.m.Links, l)
}

func (s *scan) nameOf(address string) string {
	if a := s.m.Accelerator(address); a != nil {
		return a.ID
	}
	return address
}

// properties reads lines of a name and a number.
func (s *scan) properties(file string) (map[string]uint64, bool) {
	data, err := s.read(file, maxTable)
	if err != nil {
		return nil, false
	}
	p := map[string]uint64{}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) != 2 {
			continue
		}
		if n, err := strconv.ParseUint(f[1], 10, 64); err == nil {
			p[f[0]] = n
		}
	}
	return p, true
}
