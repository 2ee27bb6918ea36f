package hardware

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
)

// maxCacheIndex bounds the caches of one CPU; machines have up to five.
const maxCacheIndex = 10

// cachesOf reads the caches of a CPU that no lower-numbered CPU shares.
// See Documentation/ABI/testing/sysfs-devices-system-cpu, "cache".
func (s *scan) cachesOf(id int) {
	last := -1
	for index := range maxCacheIndex {
		dir := cpuPath(id, "cache/index"+strconv.Itoa(index)+"/")
		cpus, ok := s.mask(dir + "shared_cpu_map")
		if !ok && s.lists {
			cpus, ok = s.list(dir + "shared_cpu_list")
		}
		if !ok {
			// The first CPU tells where the numbers end: looking further
			// for each of a hundred others would take a fifth of the time.
			if s.lastCache > 0 && index > s.lastCache {
				break
			}
			continue
		}
		last = index
		if cpus.Empty() { // Itanium leaves it empty for its own caches
			if cpus, ok = s.siblings(id, "core_cpus", "thread_siblings"); !ok {
				continue
			}
		}
		if cpus = cpus.And(s.m.Online); cpus.First() == id {
			s.cache(dir, cpus)
		}
	}
	s.lastCache = max(s.lastCache, last)
}

func (s *scan) cache(dir string, cpus Set) {
	level, ok := s.positive(dir + "level")
	if !ok || level > 9 {
		s.gap(dir, "cache without a level")
		return
	}
	c := Cache{Level: level, Kind: Unified, CPUs: cpus}
	switch kind, _ := s.text(dir + "type"); kind {
	case "Data":
		c.Kind = Data
	case "Instruction":
		c.Kind = Instruction
	}
	if kib, ok := s.positive(dir + "size"); ok {
		c.Size = Bytes(kib) << 10
	}
	c.LineSize, _ = s.positive(dir + "coherency_line_size")
	c.Ways = s.ways(dir, c)
	for _, other := range s.m.Caches {
		if other.Level == c.Level && other.Kind == c.Kind && other.CPUs.Equal(c.CPUs) {
			return
		}
	}
	s.m.Caches = append(s.m.Caches, c)
}

// ways computes the associativity: the kernel's own ways_of_associativity
// means different things on different processors when fully associative.
func (s *scan) ways(dir string, c Cache) int {
	sets, ok := s.positive(dir + "number_of_sets")
	if !ok || sets == 1 || c.LineSize == 0 {
		return 0
	}
	partition := 1
	if n, ok := s.integer(dir + "physical_line_partition"); ok {
		partition = n
	}
	if partition <= 0 {
		return 0
	}
	return int(c.Size) / c.LineSize / partition / sets
}

func (s *scan) sortCaches() {
	slices.SortStableFunc(s.m.Caches, func(a, b Cache) int {
		return cmp.Or(cmp.Compare(b.Level, a.Level), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.CPUs.First(), b.CPUs.First()))
	})
}

// Name is the level and kind in the usual notation: L1d, L3.
func (c Cache) Name() string {
	return fmt.Sprintf("L%d%s", c.Level, map[CacheKind]string{Data: "d", Instruction: "i"}[c.Kind])
}
