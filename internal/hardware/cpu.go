package hardware

import (
	"slices"
	"strconv"
	"strings"
)

const cpuDir = "/sys/devices/system/cpu"

// unknownID is what the kernel prints for -1 in a 16-bit field, as of clusters
// that the firmware does not number.
const unknownID = 1<<16 - 1

func cpuPath(id int, attribute string) string {
	return cpuDir + "/cpu" + strconv.Itoa(id) + "/" + attribute
}

// cpus reads packages, dies, clusters, cores and caches from the kernel's CPU
// topology. See Documentation/admin-guide/cputopology.rst.
func (s *scan) cpus() {
	s.m.Present = s.numbered(cpuDir, "cpu")
	online, listed := s.onlineList()
	for _, id := range s.m.Present.IDs() {
		if listed && !online.Has(id) {
			continue
		}
		if !listed {
			if on, ok := s.integer(cpuPath(id, "online")); ok && on == 0 {
				continue
			}
		}
		if s.exists(cpuPath(id, "topology")) {
			s.m.Online.Add(id)
		}
	}
	if s.m.Online.Empty() {
		s.withoutTopology(online)
		return
	}
	for _, id := range s.m.Online.IDs() {
		s.cpu[id] = len(s.m.CPUs)
		s.m.CPUs = append(s.m.CPUs, CPU{ID: id, Package: -1, Die: -1, Cluster: -1, Core: -1, Node: -1, Kind: -1})
	}
	s.lists = s.onlyLists(s.m.CPUs[0].ID)
	for i := range s.m.CPUs {
		s.place(&s.m.CPUs[i])
	}
	for i := range s.m.CPUs {
		s.cachesOf(s.m.CPUs[i].ID)
	}
	s.sortCaches()
	if set, ok := s.list(cpuDir + "/isolated"); ok {
		s.m.Isolated = set.And(s.m.Online)
	}
	if text, _ := s.text(cpuDir + "/nohz_full"); text != "" && !strings.HasPrefix(text, "(null)") {
		set, _ := s.list(cpuDir + "/nohz_full")
		s.m.Tickless = set.And(s.m.Online)
	}
}

// onlineList reads the kernel's list of the CPUs that run. Where it is missing,
// empty or made up each CPU tells for itself. LXCFS makes it up: in a container
// it counts the CPUs from 0, and leaves their folders and the cpuset as they
// are, so that CPUs which work may use are not on the list.
func (s *scan) onlineList() (online Set, listed bool) {
	online, listed = s.list(cpuDir + "/online")
	if !listed || online.Empty() {
		return Set{}, false
	}
	if s.permitted.contradicts(online) {
		s.gap(cpuDir+"/online", "%s is not true: CPUs %s may be used, and the kernel lets only CPUs that run be used; the CPUs' own files are believed", online, s.permitted.cpus)
		return Set{}, false
	}
	return online, true
}

// withoutTopology is the map where the kernel shows CPUs but not how they
// lie, as some sandboxes do: one package of single-threaded cores.
func (s *scan) withoutTopology(online Set) {
	if s.m.Present.Empty() {
		s.m.Present = s.processors()
	}
	s.m.Online = s.m.Present
	if !online.Empty() && online.Meets(s.m.Present) {
		s.m.Online = online.And(s.m.Present)
	}
	if s.m.Online.Empty() {
		s.gap(cpuDir, "no CPU is listed here or in /proc/cpuinfo")
		return
	}
	s.gap(cpuDir, "the kernel shows no CPU topology: packages, cores and caches are unknown")
	s.m.Packages = []Package{{CPUs: s.m.Online}}
	for _, id := range s.m.Online.IDs() {
		s.cpu[id] = len(s.m.CPUs)
		s.m.CPUs = append(s.m.CPUs, CPU{ID: id, Die: -1, Cluster: -1, Core: len(s.m.Cores), Node: -1, Kind: -1})
		s.m.Cores = append(s.m.Cores, Core{ID: id, CPUs: NewSet(id), Kind: -1})
	}
}

// processors are the CPU numbers of /proc/cpuinfo.
func (s *scan) processors() Set {
	var set Set
	data, err := s.read("/proc/cpuinfo", maxTable)
	if err != nil {
		return set
	}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(key) != "processor" {
			continue
		}
		if id, err := strconv.Atoi(strings.TrimSpace(value)); err == nil {
			set.Add(id)
		}
	}
	return set
}

// onlyLists reports whether a tree holds the lists of siblings but not the
// masks, as some that others recorded do.
func (s *scan) onlyLists(id int) bool {
	at := cpuPath(id, "topology/")
	return !s.exists(at+"core_cpus") && !s.exists(at+"thread_siblings") && (s.exists(at+"core_cpus_list") || s.exists(at+"thread_siblings_list"))
}

// siblings reads a topology mask under its new name or, before Linux 5.3,
// its old one, kept to the CPUs that are online.
func (s *scan) siblings(id int, names ...string) (Set, bool) {
	for _, name := range names {
		read := s.mask
		if s.lists {
			name, read = name+"_list", s.list
		}
		if set, ok := read(cpuPath(id, "topology/"+name)); ok {
			return set.And(s.m.Online), true
		}
	}
	return Set{}, false
}

// place finds the core, cluster, die and package of a CPU. Each group is read
// by its lowest CPU, which then tells the others.
func (s *scan) place(c *CPU) {
	threads, ok := s.siblings(c.ID, "core_cpus", "thread_siblings")
	if !ok || !threads.Has(c.ID) {
		threads = NewSet(c.ID)
	}
	coreID, known := s.integer(cpuPath(c.ID, "topology/core_id"))
	if !known {
		coreID = -1
	}
	if s.computeUnits {
		threads = s.sameCore(threads, c.ID, coreID)
	}
	if first := threads.First(); first < c.ID {
		// An earlier CPU has placed the core already.
		from := s.m.CPUs[s.cpu[first]]
		c.Package, c.Die, c.Cluster, c.Core = from.Package, from.Die, from.Cluster, from.Core
		s.m.Cores[c.Core].CPUs.Add(c.ID)
		return
	}
	s.placePackage(c)
	s.placeGroup(c, &c.Die, &s.m.Dies, "die_cpus", "die_id")
	s.placeGroup(c, &c.Cluster, &s.m.Clusters, "cluster_cpus", "cluster_id")
	// The other threads join when they are read: where they disagree, each
	// still belongs to one core.
	c.Core = len(s.m.Cores)
	s.m.Cores = append(s.m.Cores, Core{ID: coreID, Package: c.Package, CPUs: NewSet(c.ID), Kind: -1})
}

// sameCore keeps of an AMD compute unit's CPUs those with the same core_id.
func (s *scan) sameCore(unit Set, id, coreID int) Set {
	same := NewSet(id)
	for _, other := range unit.IDs() {
		if otherID, ok := s.integer(cpuPath(other, "topology/core_id")); ok && otherID == coreID {
			same.Add(other)
		}
	}
	return same
}

// placePackage leaves the package unknown where the CPUs contradict each
// other about who is in it; of a package within another the inner one counts.
func (s *scan) placePackage(c *CPU) {
	cpus, ok := s.siblings(c.ID, "package_cpus", "core_siblings")
	if !ok || !cpus.Has(c.ID) {
		return
	}
	first := cpus.First()
	for i := range s.m.Packages {
		switch p := &s.m.Packages[i]; {
		case first < c.ID && p.CPUs.Has(first) && p.CPUs.Has(c.ID):
			c.Package = p.ID
			return
		case first == c.ID && cpus.In(p.CPUs):
			p.CPUs = p.CPUs.Minus(cpus)
		case first == c.ID && cpus.Meets(p.CPUs):
			first = -1
		}
	}
	if first != c.ID {
		s.gap(cpuPath(c.ID, "topology"), "package unknown: the CPUs disagree about who shares it")
		return
	}
	if id, ok := s.integer(cpuPath(c.ID, "topology/physical_package_id")); ok {
		c.Package = id
	}
	s.m.Packages = append(s.m.Packages, Package{ID: c.Package, CPUs: cpus})
}

// placeGroup reads a die or cluster; it lists only those that divide their
// package, because a kernel names a die of the whole package on every machine.
func (s *scan) placeGroup(c *CPU, id *int, groups *[]Group, mask, number string) {
	cpus, ok := s.siblings(c.ID, mask)
	if !ok || !cpus.Has(c.ID) {
		return
	}
	if n, ok := s.integer(cpuPath(c.ID, "topology/"+number)); ok && n != unknownID {
		*id = n
	}
	overlaps := func(g Group) bool { return g.CPUs.Meets(cpus) }
	if cpus.First() != c.ID || cpus.Len() == 1 || s.dividesNothing(cpus) || slices.ContainsFunc(*groups, overlaps) {
		return
	}
	*groups = append(*groups, Group{ID: *id, Package: c.Package, CPUs: cpus})
}

func (s *scan) dividesNothing(cpus Set) bool {
	for _, p := range s.m.Packages {
		if p.CPUs.Equal(cpus) {
			return true
		}
	}
	for _, d := range s.m.Dies {
		if d.CPUs.Equal(cpus) {
			return true
		}
	}
	return false
}
