package place

import "slices"

// Scores of a pair of devices, those of NVIDIA's go-gpuallocator: 100 for each
// direct link, and for the way over PCIe what follows.
const (
	scoreCrossNUMA    = 10
	scoreSameNUMA     = 20
	scoreSameRoot     = 30
	scoreManySwitches = 40
	scoreOneSwitch    = 50
	scoreDirect       = 100
)

// fabric holds how the devices of a machine are joined, by index.
type fabric struct {
	score  [][]int32  // of every pair
	direct [][]uint16 // direct links of a pair, any kind
	kinds  map[string][][]uint16
}

func newFabric(m *Machine) *fabric {
	n := len(m.Devices)
	f := &fabric{score: square[int32](n), direct: square[uint16](n), kinds: map[string][][]uint16{}}
	index := make(map[string]int, n)
	for i := range m.Devices {
		index[m.Devices[i].ID] = i
	}
	for _, l := range m.Links {
		a, okA := index[l.A]
		b, okB := index[l.B]
		if !okA || !okB || a == b || l.Count <= 0 {
			continue
		}
		if f.kinds[l.Kind] == nil {
			f.kinds[l.Kind] = square[uint16](n)
		}
		count := uint16(min(l.Count, 1000))
		for _, table := range [][][]uint16{f.kinds[l.Kind], f.direct} {
			table[a][b] = max(table[a][b], count)
			table[b][a] = table[a][b]
		}
	}
	for i := range n {
		for j := range n {
			if i != j {
				f.score[i][j] = int32(f.direct[i][j])*scoreDirect + pcieScore(&m.Devices[i], &m.Devices[j])
			}
		}
	}
	return f
}

func square[T any](n int) [][]T {
	cells := make([]T, n*n)
	rows := make([][]T, n)
	for i := range rows {
		rows[i] = cells[i*n : (i+1)*n]
	}
	return rows
}

// pcieScore rates the way between two devices over PCIe.
func pcieScore(a, b *Device) int32 {
	shared := sharedPath(a, b)
	switch {
	case shared >= 2 && shared == len(a.Path) && shared == len(b.Path):
		return scoreOneSwitch
	case shared >= 2:
		return scoreManySwitches
	case shared == 1:
		return scoreSameRoot
	case a.NUMA >= 0 && a.NUMA == b.NUMA:
		return scoreSameNUMA
	}
	return scoreCrossNUMA
}

// sharedPath counts the PCIe root and bridges that two devices share.
func sharedPath(a, b *Device) int {
	n := 0
	for n < len(a.Path) && n < len(b.Path) && a.Path[n] == b.Path[n] {
		n++
	}
	return n
}

// joined reports whether two devices satisfy a link request.
func (f *fabric) joined(m *Machine, kind LinkKind, i, j int) bool {
	a, b := &m.Devices[i], &m.Devices[j]
	switch kind {
	case LinkDirect:
		return f.direct[i][j] > 0
	case LinkNVLink, LinkXGMI:
		table := f.kinds[string(kind)]
		return table != nil && table[i][j] > 0
	case LinkSwitch:
		return sharedPath(a, b) >= 2
	case LinkRoot:
		return sharedPath(a, b) >= 1
	case LinkNUMA:
		return a.NUMA >= 0 && a.NUMA == b.NUMA
	}
	return false
}

// setScore sums the pair scores of a set.
func (f *fabric) setScore(set []int) int64 {
	var sum int64
	for i, a := range set {
		for _, b := range set[i+1:] {
			sum += int64(f.score[a][b])
		}
	}
	return sum
}

// largestJoined returns the size of the largest group found among the devices
// in which all pairs are joined, to word a refusal.
func (f *fabric) largestJoined(m *Machine, kind LinkKind, devices []int) int {
	best := 0
	for _, seed := range devices {
		group := []int{seed}
		for _, d := range devices {
			if d != seed && !slices.ContainsFunc(group, func(g int) bool { return !f.joined(m, kind, g, d) }) {
				group = append(group, d)
			}
		}
		best = max(best, len(group))
	}
	return best
}
