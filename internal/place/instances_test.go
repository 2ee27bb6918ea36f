package place

import (
	"slices"
	"testing"
)

// Instances of one work go to different NUMA nodes and devices, as far as there are
// any, where other work is packed.
func TestInstancesAreSpread(t *testing.T) {
	m := grid(1, 2, 1, 4, 1)
	for n := range 2 {
		for _, id := range []string{"a", "b"} {
			m.Devices = append(m.Devices, Device{ID: "gpu" + string(rune('0'+n)) + id, NUMA: n, Memory: 8 << 30, Shares: 8})
		}
	}
	for what, req := range map[string]Request{
		"shared":    {Class: Interactive, MilliCPU: 100},
		"exclusive": {Class: Interactive, MilliCPU: 1000, Exclusive: true},
		"devices":   {Class: Interactive, MilliCPU: 100, Devices: []DeviceRequest{{Name: "gpu", Fraction: Fraction{Milli: 250}}}},
	} {
		s, err := NewState(m)
		if err != nil {
			t.Fatal(err)
		}
		nodes, devices := map[int]int{}, map[string]int{}
		for i, name := range []string{"m", "m2", "m3", "m4"} {
			r := req
			if r.Name = name; i > 0 {
				r.Of = "m"
			}
			p, err := s.Place(t.Context(), r)
			if err != nil || len(p.NUMANodes) != 1 {
				t.Fatalf("%s: instance %d: %+v, %v", what, i, p, err)
			}
			nodes[p.NUMANodes[0]]++
			for _, d := range p.Devices {
				devices[d.ID]++
			}
		}
		if nodes[0] != 2 || nodes[1] != 2 || len(req.Devices) > 0 && len(devices) != 4 {
			t.Errorf("%s: by nodes %v, by devices %v", what, nodes, devices)
		}
		// The first, placed again, goes where the others leave most room.
		s.Release("m")
		again := req
		again.Name = "m"
		if p, err := s.Place(t.Context(), again); err != nil || nodes[p.NUMANodes[0]] != 2 {
			t.Errorf("%s: placed again: %+v, %v", what, p, err)
		}
	}
	// Who stays apart from a work stays apart from all its instances.
	s, err := NewState(m)
	if err != nil {
		t.Fatal(err)
	}
	mustPlace(t, s, Request{Name: "m", MilliCPU: 100}, Request{Name: "m2", Of: "m", MilliCPU: 100})
	if _, err := s.Place(t.Context(), Request{Name: "other", MilliCPU: 100, Apart: []string{"m"}}); err == nil {
		t.Error("placed beside the second instance")
	}
	var names []string
	for _, p := range s.Placements() {
		names = append(names, p.Request.Name)
	}
	if slices.Sort(names); !slices.Equal(names, []string{"m", "m2"}) {
		t.Errorf("got %q", names)
	}
}
