package place

import (
	"fmt"
	"math/rand"
	"testing"
)

// paired is a machine of n GPUs on one NUMA node, joined in pairs by links and
// two pairs under one PCIe root, with some links between pairs at random.
func paired(r *rand.Rand, n int) *Machine {
	m := &Machine{CPUs: []CPU{{}}}
	for i := range n {
		m.Devices = append(m.Devices, Device{ID: fmt.Sprint("gpu", i), Driver: "gpu.example.com", Path: []string{fmt.Sprint("root", i/4), fmt.Sprint("switch", i/2)}})
		if i%2 == 1 {
			m.Links = append(m.Links, Link{A: fmt.Sprint("gpu", i-1), B: fmt.Sprint("gpu", i), Kind: "nvlink", Count: 4})
		}
	}
	for range r.Intn(2 * n) {
		m.Links = append(m.Links, Link{A: fmt.Sprint("gpu", r.Intn(n)), B: fmt.Sprint("gpu", r.Intn(n)), Kind: "nvlink", Count: 1 + r.Intn(3)})
	}
	return m
}

// TestSetsOfManyDevicesAreTheBest compares the set chosen on machines of more
// devices than the allocator of NVIDIA was made for with all sets.
func TestSetsOfManyDevicesAreTheBest(t *testing.T) {
	r := rand.New(rand.NewSource(7))
	for i := range 60 {
		m := paired(r, 10+r.Intn(9))
		s := newState(t, m)
		for _, k := range []int{2, 4, 5} {
			best, pick := int64(0), make([]int, 0, k)
			var visit func(from int)
			visit = func(from int) {
				if len(pick) == k {
					best = max(best, s.fabric.setScore(pick))
					return
				}
				for d := from; d < len(m.Devices); d++ {
					pick = append(pick, d)
					visit(d + 1)
					pick = pick[:len(pick)-1]
				}
			}
			visit(0)
			p, err := s.Try(t.Context(), Request{Name: "x", Devices: []DeviceRequest{{Name: "gpu", Count: k}}})
			if err != nil {
				t.Fatal(err)
			}
			if got := s.fabric.setScore(grantedIndexes(s, &p)); got != best {
				t.Fatalf("machine %d: %d of %d GPUs: got a score of %d, the best is %d", i, k, len(m.Devices), got, best)
			}
		}
	}
}

// TestSetsOfTwoRequestsAreTheBest compares the answer to two device requests
// with all answers to both.
func TestSetsOfTwoRequestsAreTheBest(t *testing.T) {
	r := rand.New(rand.NewSource(8))
	for i := range 60 {
		m := paired(r, 8)
		for n := range 4 {
			m.Devices = append(m.Devices, Device{ID: fmt.Sprint("nic", n), Driver: "nic.example.com", Path: []string{fmt.Sprint("root", n/2), fmt.Sprint("switch", r.Intn(4))}})
		}
		s := newState(t, m)
		best := int64(0)
		for a := range 8 {
			for b := range a {
				for n := 8; n < 12; n++ {
					best = max(best, s.fabric.setScore([]int{a, b, n}))
				}
			}
		}
		p, err := s.Try(t.Context(), Request{Name: "x", Devices: []DeviceRequest{
			{Name: "gpu", Count: 2, Selector: selector(t, `device.driver == "gpu.example.com"`)},
			{Name: "nic", Selector: selector(t, `device.driver == "nic.example.com"`)},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.fabric.setScore(grantedIndexes(s, &p)); got != best {
			t.Fatalf("machine %d: got a score of %d, the best is %d", i, got, best)
		}
	}
}

func grantedIndexes(s *State, p *Placement) []int {
	var set []int
	for _, g := range p.Devices {
		set = append(set, s.deviceIndex(g.ID))
	}
	return set
}
