package hardware

import (
	"cmp"
	"slices"
)

// perCPU is what the kernel reports about one CPU's strength. Frequencies in kHz.
type perCPU struct {
	id, maxFreq, baseFreq, capacity int
	coreType                        string
}

// maxTurboStep is how much faster a core may boost than the next slower one of
// its kind. Firmware ranks the cores of one kind by how far each may go (Intel
// Turbo Boost Max 3.0, AMD's preferred cores), in small steps that add up to a
// quarter and more; between two kinds there is a gap.
const maxTurboStep = 1.10

// kinds groups the CPUs into kinds of cores and orders them from the least to
// the most powerful. On Arm the cores' own identification decides, elsewhere
// Intel's core types, the kernel's capacities and frequencies.
func (s *scan) kinds() {
	if len(s.m.CPUs) == 0 {
		return
	}
	var kinds []Kind
	if s.exists(cpuPath(s.m.Online.First(), "regs/identification/midr_el1")) { // arm64 alone has it
		kinds = s.kindsByMIDR()
	} else {
		types := s.coreTypes()
		kinds = s.kindsByFrequency(types)
		for _, t := range types {
			kinds = split(kinds, t.cpus, func(k *Kind) { k.CoreType = t.name })
		}
	}
	rank(kinds)
	s.m.Kinds = kinds
	nameKinds(kinds)
	for k := range kinds {
		for _, id := range kinds[k].CPUs.IDs() {
			if i, ok := s.cpu[id]; ok {
				s.m.CPUs[i].Kind = k
				s.m.Cores[s.m.CPUs[i].Core].Kind = k
			}
		}
	}
}

func (s *scan) x86() bool {
	a := s.m.System.Architecture
	return a == "x86_64" || len(a) == 4 && a[0] == 'i' && a[2:] == "86" ||
		a == "" && (s.m.System.CPUVendor == "GenuineIntel" || s.m.System.CPUVendor == "AuthenticAMD")
}

func (s *scan) kindsByMIDR() []Kind {
	byMIDR := map[uint64]*Kind{}
	var order []*Kind
	for _, c := range s.m.CPUs {
		midr := s.hex(cpuPath(c.ID, "regs/identification/midr_el1"))
		if midr == 0 {
			continue
		}
		capacity, _ := s.positive(cpuPath(c.ID, "cpu_capacity"))
		k := byMIDR[midr]
		if k == nil {
			k = &Kind{MIDR: midr, CoreType: armCore(midr>>24&0xff, midr>>4&0xfff), Capacity: capacity, ranked: true}
			byMIDR[midr] = k
			order = append(order, k)
		}
		k.CPUs.Add(c.ID)
		k.Capacity = min(k.Capacity, capacity)
	}
	if len(order) < 2 {
		return nil // one kind: nothing tells it from another
	}
	kinds := make([]Kind, len(order))
	for i, k := range order {
		kinds[i] = *k
	}
	return kinds
}

func (s *scan) kindsByFrequency(types []coreType) []Kind {
	cpus := make([]perCPU, len(s.m.CPUs))
	nominal := -1 // whether base frequencies come from CPPC; -1 undecided
	unbased := false
	for i, c := range s.m.CPUs {
		p := perCPU{id: c.ID}
		for _, t := range types {
			if t.cpus.Has(c.ID) {
				p.coreType = t.name
			}
		}
		p.maxFreq, _ = s.positive(cpuPath(c.ID, "cpufreq/cpuinfo_max_freq"))
		if nominal != 1 {
			if n, ok := s.integer(cpuPath(c.ID, "cpufreq/base_frequency")); ok {
				p.baseFreq, nominal = max(n, 0), 0
			}
		}
		if nominal != 0 {
			nominal = 0
			if n, ok := s.positive(cpuPath(c.ID, "acpi_cppc/nominal_freq")); ok && n < 1<<20 {
				p.baseFreq, nominal = n*1000, 1
			}
		}
		p.capacity, _ = s.positive(cpuPath(c.ID, "cpu_capacity"))
		unbased = unbased || p.maxFreq > 0 && p.baseFreq == 0
		cpus[i] = p
	}
	if !unbased || s.x86() {
		evenTurbo(cpus)
	}
	var kinds []Kind
	for _, by := range []struct {
		value func(perCPU) int
		set   func(*Kind, int)
	}{
		{func(p perCPU) int { return p.maxFreq / 1000 }, func(k *Kind, v int) { k.MaxMHz = v }},
		{func(p perCPU) int { return p.baseFreq / 1000 }, func(k *Kind, v int) { k.BaseMHz = v }},
		{func(p perCPU) int { return p.capacity }, func(k *Kind, v int) { k.Capacity, k.ranked = v, true }},
	} {
		kinds = register(kinds, cpus, by.value, by.set)
	}
	return kinds
}

// evenTurbo gives CPUs of one core type and base frequency the lowest of their
// maximum frequencies and capacities, as far as those follow each other in
// small steps.
func evenTurbo(cpus []perCPU) {
	type group struct {
		coreType string
		base     int
	}
	groups := map[group][]*perCPU{}
	for i := range cpus {
		key := group{cpus[i].coreType, cpus[i].baseFreq}
		groups[key] = append(groups[key], &cpus[i])
	}
	for _, group := range groups {
		slices.SortFunc(group, func(a, b *perCPU) int { return cmp.Compare(a.maxFreq, b.maxFreq) })
		for start := 0; start < len(group); {
			end, capacity := start+1, group[start].capacity
			for end < len(group) && float64(group[end].maxFreq) < maxTurboStep*float64(group[end-1].maxFreq) {
				capacity = min(capacity, group[end].capacity)
				end++
			}
			low := group[start].maxFreq
			if low > 0 && low < group[end-1].maxFreq {
				for _, p := range group[start:end] {
					p.maxFreq, p.capacity = low, capacity
				}
			}
			start = end
		}
	}
}

// register refines kinds by one value of the CPUs, from its lowest up. A kind
// whose CPUs have several values is split, the split-off part listed last.
func register(kinds []Kind, cpus []perCPU, value func(perCPU) int, set func(*Kind, int)) []Kind {
	byValue := map[int]*Set{}
	var values []int
	for _, p := range cpus {
		v := value(p)
		if v <= 0 {
			continue
		}
		if byValue[v] == nil {
			byValue[v] = &Set{}
			values = append(values, v)
		}
		byValue[v].Add(p.id)
	}
	slices.Sort(values)
	for _, v := range values {
		kinds = split(kinds, *byValue[v], func(k *Kind) { set(k, v) })
	}
	return kinds
}

// split marks the CPUs of a set as alike.
func split(kinds []Kind, cpus Set, mark func(*Kind)) []Kind {
	for i := range len(kinds) {
		common := cpus.And(kinds[i].CPUs)
		if common.Empty() {
			continue
		}
		if kinds[i].CPUs.In(cpus) {
			mark(&kinds[i])
		} else {
			part := kinds[i]
			part.CPUs = common
			mark(&part)
			kinds[i].CPUs = kinds[i].CPUs.Minus(common)
			kinds = append(kinds, part)
		}
		cpus = cpus.Minus(common)
	}
	if !cpus.Empty() {
		rest := Kind{CPUs: cpus}
		mark(&rest)
		kinds = append(kinds, rest)
	}
	return kinds
}

// coreType is a type of cores that the processor itself tells.
type coreType struct {
	name string
	cpus Set
}

// coreTypes reads the CPUs of Intel's per-type performance monitors.
func (s *scan) coreTypes() []coreType {
	var types []coreType
	if !s.x86() {
		return nil
	}
	for _, t := range []struct{ file, name string }{
		{"/sys/devices/cpu_atom/cpus", "IntelAtom"},
		{"/sys/devices/cpu_core/cpus", "IntelCore"},
		{"/sys/devices/cpu_lowpower/cpus", "IntelLowPower"},
	} {
		if cpus, ok := s.list(t.file); ok {
			if cpus = cpus.And(s.m.Online); !cpus.Empty() {
				types = append(types, coreType{t.name, cpus})
			}
		}
	}
	return types
}

// rank sorts the kinds by the first measure that tells all of them apart; it
// leaves their order where none does. The kernel's capacities come first, then
// Intel's core types and the frequency within a type: the base frequency where
// all have one, for turbo tells more of the cooling than of the core.
func rank(kinds []Kind) {
	all := func(known func(Kind) bool) bool {
		return !slices.ContainsFunc(kinds, func(k Kind) bool { return !known(k) })
	}
	based := all(func(k Kind) bool { return k.BaseMHz > 0 })
	class := func(k Kind) int {
		return slices.Index([]string{"IntelLowPower", "IntelAtom", "IntelCore"}, k.CoreType) + 1
	}
	enough := based || all(func(k Kind) bool { return k.MaxMHz > 0 }) || all(func(k Kind) bool { return class(k) > 0 })
	measures := []func(Kind) (int, bool){
		func(k Kind) (int, bool) { return k.Capacity, k.ranked },
		func(k Kind) (int, bool) {
			if based {
				return class(k)<<24 + k.BaseMHz, true
			}
			return class(k)<<24 + k.MaxMHz, enough
		},
	}
	for _, measure := range measures {
		if distinct(kinds, measure) {
			slices.SortStableFunc(kinds, func(a, b Kind) int {
				x, _ := measure(a)
				y, _ := measure(b)
				return cmp.Compare(x, y)
			})
			return
		}
	}
}

func distinct(kinds []Kind, measure func(Kind) (int, bool)) bool {
	seen := map[int]bool{}
	for _, k := range kinds {
		v, ok := measure(k)
		if !ok || seen[v] {
			return false
		}
		seen[v] = true
	}
	return true
}

// nameKinds gives the kinds of a mixed processor the names people use.
func nameKinds(kinds []Kind) {
	if len(kinds) < 2 {
		return
	}
	for i := range kinds {
		switch kinds[i].CoreType {
		case "IntelCore":
			kinds[i].Name = "performance"
		case "IntelAtom":
			kinds[i].Name = "efficiency"
		case "IntelLowPower":
			kinds[i].Name = "low-power"
		default:
			kinds[i].Name = "efficiency"
			if i == len(kinds)-1 {
				kinds[i].Name = "performance"
			}
		}
	}
}
