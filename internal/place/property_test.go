package place

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"slices"
	"testing"
)

// randomMachine is small enough for brute force.
func randomMachine(r *rand.Rand) *Machine {
	m := grid(1+r.Intn(2), 1+r.Intn(2), 1+r.Intn(2), 1+r.Intn(2), 1+r.Intn(2))
	m.CPUs = slices.DeleteFunc(m.CPUs, func(CPU) bool { return r.Intn(5) == 0 }) // offline
	if len(m.CPUs) == 0 {
		m.CPUs = []CPU{{ID: 3}}
	}
	for i := range m.NUMA {
		m.NUMA[i].Memory = int64(r.Intn(5)) << 30
	}
	return withGPUs(m, r.Intn(3))
}

// TestTakeCPUsIsOptimal compares the packing of CPUs with all subsets.
func TestTakeCPUsIsOptimal(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for range 400 {
		m := randomMachine(r)
		var free []*CPU
		for i := range m.CPUs {
			if r.Intn(3) > 0 && len(free) < 12 {
				free = append(free, &m.CPUs[i])
			}
		}
		if len(free) == 0 {
			continue
		}
		n := 1 + r.Intn(len(free))
		got := countGroups(takeCPUs(free, n))
		best := got
		for mask := range 1 << len(free) {
			var set []*CPU
			for i, c := range free {
				if mask>>i&1 == 1 {
					set = append(set, c)
				}
			}
			if len(set) == n {
				if counts := countGroups(set); slices.Compare(counts[:], best[:]) < 0 {
					best = counts
				}
			}
		}
		if best != got {
			t.Fatalf("%d of %d CPUs: got %v packages, nodes, caches, cores; the best has %v", n, len(free), got, best)
		}
	}
}

// TestPlaceUsesTheFewestNodes compares admission and the number of NUMA nodes
// with brute force over all sets of nodes.
func TestPlaceUsesTheFewestNodes(t *testing.T) {
	r := rand.New(rand.NewSource(2))
	for i := range 600 {
		m := randomMachine(r)
		m.CPUs[0].Reserved = true
		s := newState(t, m)
		req := Request{Name: "x", MilliCPU: int64(r.Intn(8)) * 1000, Memory: int64(r.Intn(10)) << 30}
		req.Exclusive = req.MilliCPU > 0 && r.Intn(2) == 0
		fewest := 0
		for mask := 1; mask < 1<<len(m.NUMA); mask++ {
			var cpus, memory int64
			count := 0
			for n := range m.NUMA {
				if mask>>n&1 == 0 {
					continue
				}
				count++
				memory += m.NUMA[n].Memory
				for _, c := range m.CPUs {
					if c.NUMA == n && !(req.Exclusive && c.Reserved) {
						cpus += 1000
					}
				}
			}
			if cpus >= req.MilliCPU && memory >= req.Memory && (fewest == 0 || count < fewest) {
				fewest = count
			}
		}
		p, err := s.Place(t.Context(), req)
		if (err == nil) != (fewest > 0) {
			t.Fatalf("case %d: got %v, brute force finds %d nodes", i, err, fewest)
		}
		if err != nil || req.MilliCPU+req.Memory == 0 {
			continue
		}
		used := map[int]bool{}
		for _, share := range p.Shares {
			used[share.Node] = true
		}
		for _, g := range p.Memory {
			used[g.Node] = true
		}
		for _, id := range p.exclusive() {
			used[m.CPUs[slices.IndexFunc(m.CPUs, func(c CPU) bool { return c.ID == id })].NUMA] = true
		}
		if len(used) > fewest {
			t.Fatalf("case %d: got %d NUMA nodes, %d would do", i, len(used), fewest)
		}
	}
}

// TestPartitionIsOptimal compares the division of linked devices with all
// divisions.
func TestPartitionIsOptimal(t *testing.T) {
	r := rand.New(rand.NewSource(3))
	for range 200 {
		n := 2 + r.Intn(6)
		f := &fabric{score: square[int32](n)}
		for i := range n {
			for j := range i {
				f.score[i][j] = int32(r.Intn(4) * 100)
				f.score[j][i] = f.score[i][j]
			}
		}
		k := 1 + r.Intn(n)
		devices := make([]int, n)
		for i := range devices {
			devices[i] = i
		}
		var got int64
		sets := f.partition(devices, k)
		for _, set := range sets {
			got += f.setScore(set)
		}
		if len(sets) != n/k {
			t.Fatalf("%d devices in sets of %d: got %d sets", n, k, len(sets))
		}
		if best := bestDivision(f, devices, k); got != best {
			t.Fatalf("%d devices in sets of %d: got a total of %d, the best is %d", n, k, got, best)
		}
	}
}

func bestDivision(f *fabric, devices []int, k int) int64 {
	if len(devices) < k {
		return 0
	}
	best := int64(-1)
	for mask := range 1 << len(devices) {
		var set, rest []int
		for i, d := range devices {
			if mask>>i&1 == 1 {
				set = append(set, d)
			} else {
				rest = append(rest, d)
			}
		}
		if len(set) == k {
			best = max(best, f.setScore(set)+bestDivision(f, rest, k))
		}
	}
	return best
}

// TestStateIsConserved places and releases at random and holds that nothing is
// given twice, lost or left over.
func TestStateIsConserved(t *testing.T) {
	r := rand.New(rand.NewSource(4))
	for range 60 {
		m := randomMachine(r)
		s := newState(t, m)
		fresh := newState(t, m)
		var names []string
		for i := range 60 {
			if len(names) > 0 && r.Intn(3) == 0 {
				k := r.Intn(len(names))
				s.Release(names[k])
				names = slices.Delete(names, k, k+1)
			} else {
				req := randomRequest(r, fmt.Sprint(i))
				if _, err := s.Place(t.Context(), req); err == nil {
					names = append(names, req.Name)
				}
			}
			checkState(t, s)
		}
		for _, n := range names {
			s.Release(n)
		}
		if fmt.Sprint(s.use, s.memory, s.taken, s.huge) != fmt.Sprint(fresh.use, fresh.memory, fresh.taken, fresh.huge) {
			t.Fatalf("after releasing all: %v %v %v", s.use, s.memory, s.taken)
		}
	}
}

func randomRequest(r *rand.Rand, name string) Request {
	req := Request{Name: name, Class: Class(r.Intn(3)), MilliCPU: int64(r.Intn(4)) * 500, Memory: int64(r.Intn(3)) << 29}
	if r.Intn(3) == 0 {
		req.MilliCPU, req.Exclusive, req.WholeCore = int64(1+r.Intn(2))*1000, true, r.Intn(2) == 0
	}
	if r.Intn(2) == 0 {
		fractions := []Fraction{{}, {Milli: 300}, {Memory: 30 << 30}, {Profile: "1g.10gb"}, {Profile: "3g.40gb"}}
		req.Devices = []DeviceRequest{{Name: "d", Count: 1 + r.Intn(2), Fraction: fractions[r.Intn(len(fractions))]}}
	}
	return req
}

// checkState holds the invariants of what is given out.
func checkState(t *testing.T, s *State) {
	t.Helper()
	if err := s.overdrawn(); err != nil {
		t.Fatal(err)
	}
	holder := map[int]string{}
	for _, p := range s.Placements() {
		for _, id := range slices.Concat(p.exclusive(), p.Held) {
			if holder[id] != "" {
				t.Fatalf("CPU %d belongs to %q and %q", id, holder[id], p.Request.Name)
			}
			holder[id] = p.Request.Name
		}
		if !p.Request.Exclusive && len(p.CPUs) == 0 {
			t.Fatalf("%q has no CPU to run on", p.Request.Name)
		}
		var memory int64
		for _, g := range p.Memory {
			memory += g.Bytes
		}
		if memory != p.Request.Memory {
			t.Fatalf("%q got %d bytes of %d", p.Request.Name, memory, p.Request.Memory)
		}
	}
	for _, p := range s.Placements() {
		if p.Request.Exclusive {
			continue
		}
		for _, id := range p.CPUs {
			if holder[id] != "" {
				t.Fatalf("shared %q runs on CPU %d of %q", p.Request.Name, id, holder[id])
			}
		}
	}
	for i, u := range s.use {
		if u.milli > 1000 && u.sharing != Partitions || u.milli < 0 || u.sharers < 0 || u.sharing == Exclusive && u.sharers != 1 || (u.sharing == "") != (u.sharers == 0) || u.memory > s.machine.Devices[i].Memory {
			t.Fatalf("device %s is given out as %+v", s.machine.Devices[i].ID, u)
		}
	}
}

// FuzzPlace throws arbitrary requests at a machine: an answer, never a panic,
// and no harm to the state.
func FuzzPlace(f *testing.F) {
	f.Add([]byte(`{"name":"a","milliCPU":4000,"exclusive":true,"memory":1073741824}`))
	f.Add([]byte(`{"name":"a","milliCPU":-1,"memory":9223372036854775807,"hugePages":[{"size":0,"bytes":1}]}`))
	f.Add([]byte(`{"name":"a","devices":[{"name":"g","count":2,"selector":"device.driver == \"gpu.example.com\""}],"links":[{"by":"nvlink"}]}`))
	f.Add([]byte(`{"name":"a","devices":[{"name":"g","count":4096,"fraction":{"milli":1000,"memory":1}}],"near":["x"],"apart":["y"],"oneNode":true}`))
	f.Add([]byte(`{"name":"a","coreKind":"x","features":["avx512f"],"memoryKind":"hbm","wholeCore":true,"class":"realtime"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var req Request
		if json.Unmarshal(raw, &req) != nil {
			return
		}
		s := newState(t, withGPUs(grid(2, 2, 1, 2, 2), 2))
		mustPlace(t, s, Request{Name: "x", MilliCPU: 1000}, Request{Name: "y", MilliCPU: 2000, Exclusive: true, Class: Batch})
		if _, err := s.Place(t.Context(), req); err == nil {
			checkState(t, s)
			s.Release(req.Name)
		} else {
			// Neither may change the state, which is checked below.
			if _, err := s.Preempt(t.Context(), req, nil); err == nil && len(s.Placements()) != 2 {
				t.Error("looking for victims changed the state")
			}
			moves, _ := s.Defragment(t.Context(), req)
			for _, m := range moves {
				if !s.moves(&m) {
					t.Errorf("the move of %q cannot be carried out", m.Name)
				}
			}
			if _, err := s.Place(t.Context(), req); len(moves) > 0 && err != nil {
				t.Errorf("after the moves: %v", err)
			}
		}
		checkState(t, s)
	})
}
