package hardware

import (
	"fmt"
	"strconv"
	"strings"
)

const kfdDir = "/sys/class/kfd/kfd/topology/nodes"

// kfdNode is one node of AMD's compute topology: a CPU or a GPU (partition).
type kfdNode struct {
	gpu  string // PCI address, empty for a CPU
	numa int
}

// Link types of the HSA thunk, include/uapi/linux/kfd_sysfs.h.
const (
	kfdPCIe = 2
	kfdXGMI = 11
)

// kfd reads AMD's compute topology: architecture and memory of the GPUs and
// the xGMI links between them.
func (s *scan) kfd() {
	ids := s.numbered(kfdDir, "").IDs()
	nodes := map[int]kfdNode{}
	for _, id := range ids {
		if n, ok := s.kfdNode(id); ok {
			nodes[id] = n
		}
	}
	for _, id := range ids {
		from, ok := nodes[id]
		if !ok || from.gpu == "" {
			continue
		}
		for _, kind := range []string{"io_links", "p2p_links"} {
			dir := kfdDir + "/" + strconv.Itoa(id) + "/" + kind
			for _, link := range s.numbered(dir, "").IDs() {
				s.kfdLink(dir+"/"+strconv.Itoa(link)+"/properties", from, nodes)
			}
		}
	}
}

func (s *scan) kfdNode(id int) (kfdNode, bool) {
	file := kfdDir + "/" + strconv.Itoa(id) + "/properties"
	p, ok := s.properties(file)
	if !ok {
		return kfdNode{}, false
	}
	if p["simd_count"] == 0 {
		return kfdNode{numa: id}, true
	}
	location, domain := p["location_id"], p["domain"]
	address := fmt.Sprintf("%04x:%02x:%02x.%x", domain&0xffffffff, location>>8&0xff, location>>3&0x1f, location&7)
	a := s.m.Accelerator(address)
	if a == nil {
		return kfdNode{gpu: address}, true
	}
	if v := p["gfx_target_version"]; v > 0 {
		a.Architecture = fmt.Sprintf("gfx%d%x%x", v/10000, v/100%100, v%100)
		s.fact(a, "architecture", a.Architecture, file)
	}
	if a.Memory == 0 {
		banks := kfdDir + "/" + strconv.Itoa(id) + "/mem_banks"
		for _, bank := range s.numbered(banks, "").IDs() {
			at := banks + "/" + strconv.Itoa(bank) + "/properties"
			if b, ok := s.properties(at); ok && (b["heap_type"] == 1 || b["heap_type"] == 2) {
				a.Memory += Bytes(b["size_in_bytes"])
				s.fact(a, "memory", a.Memory.String(), at)
			}
		}
	}
	return kfdNode{gpu: address}, true
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
