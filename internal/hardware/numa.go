package hardware

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

const nodeDir = "/sys/devices/system/node"

func nodePath(id int, attribute string) string {
	return nodeDir + "/node" + strconv.Itoa(id) + "/" + attribute
}

// nodes reads the NUMA nodes: CPUs, memory, distances, what the firmware's
// HMAT tells, memory-side caches and which device's memory a node is.
// See Documentation/admin-guide/mm/numaperf.rst.
func (s *scan) nodes() {
	listed, ok := s.list(nodeDir + "/online")
	if !ok {
		listed = s.numbered(nodeDir, "node")
	}
	if listed.Empty() {
		s.wholeMachineNode()
		return
	}
	var taken Set
	ids := listed.IDs()
	for _, id := range ids {
		cpus, ok := s.mask(nodePath(id, "cpumap"))
		if !ok {
			cpus, ok = s.list(nodePath(id, "cpulist"))
		}
		if !ok {
			s.gap(nodePath(id, "cpumap"), "node %d left out: its CPUs are unknown", id)
			continue
		}
		if cpus.Meets(taken) {
			s.gap(nodePath(id, "cpumap"), "node %d left out: its CPUs belong to another node too", id)
			continue
		}
		taken = taken.Or(cpus)
		cpus = cpus.And(s.m.Online)
		s.node[id] = len(s.m.Nodes)
		s.m.Nodes = append(s.m.Nodes, Node{ID: id, CPUs: cpus, Own: cpus, Bytes: s.memoryOf(nodePath(id, "meminfo")),
			HugePages: s.hugePages(nodePath(id, "hugepages"))})
	}
	if len(s.m.Nodes) == 0 {
		s.wholeMachineNode()
		return
	}
	s.distances(ids)
	s.gpuNodes()
	s.daxNodes()
	if !s.fakeNodes {
		s.initiators()
		s.memoryAttributes()
		s.memoryCaches()
	} else {
		s.nearestByDistance()
	}
	if s.nearMemory {
		s.xeonPhi()
	}
	s.classifyMemory()
	s.assignNodes()
}

// wholeMachineNode stands for a kernel without NUMA, or one that tells nothing
// of its nodes: all CPUs, all memory.
func (s *scan) wholeMachineNode() {
	if s.m.Online.Empty() {
		return
	}
	s.node[0] = 0
	s.m.Nodes = []Node{{CPUs: s.m.Online, Own: s.m.Online, Bytes: s.memoryOf("/proc/meminfo"),
		HugePages: s.hugePages("/sys/kernel/mm/hugepages")}}
	s.assignNodes()
}

func (s *scan) assignNodes() {
	for _, n := range s.m.Nodes {
		for _, p := range s.m.Packages {
			if n.Own.Meets(p.CPUs) && !n.Own.In(p.CPUs) && !p.CPUs.In(n.Own) {
				s.gap(nodePath(n.ID, "cpumap"), "node %d has a part of package %d and CPUs of others: nodes and packages cut across each other", n.ID, p.ID)
				break
			}
		}
		for _, id := range n.Own.IDs() {
			if i, ok := s.cpu[id]; ok {
				s.m.CPUs[i].Node = n.ID
			}
		}
		for i := range s.m.Packages {
			if !n.CPUs.Empty() && n.CPUs.In(s.m.Packages[i].CPUs) {
				s.m.Packages[i].Nodes.Add(n.ID)
			}
		}
	}
}

// memoryOf reads MemTotal of a meminfo file, "Node 0 MemTotal: 123 kB".
func (s *scan) memoryOf(file string) Bytes {
	text, _ := s.text(file)
	_, rest, ok := strings.Cut(text, "MemTotal:")
	if !ok {
		return 0
	}
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kib, err := strconv.ParseUint(fields[0], 10, 53)
	if err != nil {
		s.gap(file, "MemTotal %q is not a number", clip(fields[0]))
		return 0
	}
	return Bytes(kib) << 10
}

// distances reads the SLIT rows. The kernel prints one number for each online
// node; rows of other lengths make the whole matrix doubtful.
func (s *scan) distances(ids []int) {
	if len(ids) < 2 {
		return
	}
	for i := range s.m.Nodes {
		file := nodePath(s.m.Nodes[i].ID, "distance")
		data, err := s.read(file, maxTable)
		if err != nil {
			s.dropDistances(file, err.Error())
			return
		}
		var row []int
		for j, field := range strings.Fields(string(data)) {
			n, err := strconv.Atoi(field)
			if err != nil || n < 0 || j >= len(ids) {
				break
			}
			if _, kept := s.node[ids[j]]; kept {
				row = append(row, n)
			}
		}
		if len(row) != len(s.m.Nodes) {
			s.dropDistances(file, "not one distance for each node")
			return
		}
		s.m.Nodes[i].Distance = row
	}
}

func (s *scan) dropDistances(file, why string) {
	s.gap(file, "distances unknown: %s", clip(why))
	for i := range s.m.Nodes {
		s.m.Nodes[i].Distance = nil
	}
}

// gpuNodes marks the nodes that are the memory of an NVIDIA GPU (Grace, and
// POWER9 with NVLink) and puts them near the GPU.
func (s *scan) gpuNodes() {
	const dir = "/proc/driver/nvidia/gpus"
	for _, address := range s.dir(dir) {
		status, _ := s.text(path.Join(dir, address, "numa_status"))
		_, rest, ok := strings.Cut(status, "Node:")
		if !ok {
			continue
		}
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			continue
		}
		id, err := strconv.Atoi(fields[0])
		i, known := s.node[id]
		if err != nil || !known {
			continue
		}
		n := &s.m.Nodes[i]
		n.Memory, n.Device = "GPUMemory", strings.ToLower(address)
		n.CPUs = Set{}
		if cpus, ok := s.mask(path.Join(pciDir, n.Device, "local_cpus")); ok {
			n.CPUs = cpus.And(s.m.Online)
		}
	}
}

// initiators gives memory-only nodes, and nodes nearer to others' CPUs, the
// CPUs that the firmware's HMAT names as the best. access1 covers CPUs
// alone; access0, all there was before Linux 5.10, of any initiator.
func (s *scan) initiators() {
	own := make([]Set, len(s.m.Nodes))
	for i, n := range s.m.Nodes {
		own[i] = n.CPUs
	}
	for _, lone := range []bool{false, true} { // memory-only nodes last
		for i := range s.m.Nodes {
			n := &s.m.Nodes[i]
			if own[i].Empty() != lone {
				continue
			}
			for _, id := range s.numbered(s.accessDir(n.ID), "node").IDs() {
				if j, ok := s.node[id]; ok && id != n.ID {
					n.CPUs = n.CPUs.Or(s.m.Nodes[j].CPUs)
				}
			}
			if n.CPUs.Empty() {
				s.nearest(i)
			}
		}
	}
}

func (s *scan) nearestByDistance() {
	for i := range s.m.Nodes {
		if s.m.Nodes[i].CPUs.Empty() {
			s.nearest(i)
		}
	}
}

// nearest gives a memory-only node the CPUs of the nodes at the smallest
// distance, unless that is all of them.
func (s *scan) nearest(i int) {
	row := s.m.Nodes[i].Distance
	if len(row) == 0 {
		return
	}
	best, count := 0, 0
	for j, d := range row {
		switch {
		case j == i:
		case count == 0 || d < best:
			best, count = d, 1
		case d == best:
			count++
		}
	}
	if count == 0 || best <= row[i] || count == len(row)-1 {
		return
	}
	for j, d := range row {
		if j != i && d == best {
			s.m.Nodes[i].CPUs = s.m.Nodes[i].CPUs.Or(s.m.Nodes[j].CPUs)
		}
	}
}

func (s *scan) accessDir(id int) string {
	if dir := nodePath(id, "access1/initiators"); s.exists(dir) {
		return dir
	}
	return nodePath(id, "access0/initiators")
}

// memoryAttributes reads bandwidth (MB/s) and latency (ns) of HMAT.
func (s *scan) memoryAttributes() {
	for i := range s.m.Nodes {
		n := &s.m.Nodes[i]
		dir := s.accessDir(n.ID)
		n.ReadBandwidth, _ = s.positive(dir + "/read_bandwidth")
		n.WriteBandwidth, _ = s.positive(dir + "/write_bandwidth")
		n.ReadLatency, _ = s.positive(dir + "/read_latency")
		n.WriteLatency, _ = s.positive(dir + "/write_latency")
	}
}

// memoryCaches reads the caches in front of a node's memory.
func (s *scan) memoryCaches() {
	for i := range s.m.Nodes {
		n := &s.m.Nodes[i]
		dir := nodePath(n.ID, "memory_side_cache")
		for _, index := range s.numbered(dir, "index").IDs() {
			at := dir + "/index" + strconv.Itoa(index)
			size, sized := s.positive(at + "/size")
			line, lined := s.integer(at + "/line_size")
			indexing, told := s.integer(at + "/indexing")
			if !sized || !lined || !told {
				continue
			}
			c := Cache{Level: index, Kind: MemorySide, Size: Bytes(size), LineSize: max(line, 0), CPUs: n.CPUs, Node: &n.ID}
			if indexing == 0 {
				c.Ways = 1 // direct-mapped; the kernel tells no other count
			}
			s.m.Caches = append(s.m.Caches, c)
		}
	}
}

// hugePages counts the pages under a hugepages directory.
func (s *scan) hugePages(dir string) []HugePages {
	var pages []HugePages
	for _, name := range s.dir(dir) {
		digits, ok := strings.CutPrefix(name, "hugepages-")
		kib, err := strconv.ParseUint(strings.TrimSuffix(digits, "kB"), 10, 40)
		if !ok || err != nil {
			continue
		}
		p := HugePages{Size: Bytes(kib) << 10}
		p.Total, _ = s.integer(path.Join(dir, name, "nr_hugepages"))
		p.Free, _ = s.integer(path.Join(dir, name, "free_hugepages"))
		if file := path.Join(dir, name, "resv_hugepages"); s.exists(file) {
			p.Reserved, _ = s.positive(file)
		}
		pages = append(pages, p)
	}
	slices.SortFunc(pages, func(a, b HugePages) int { return int(a.Size>>10) - int(b.Size>>10) })
	return pages
}
