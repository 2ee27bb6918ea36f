package place

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestClusterPlacesWhatTheNodeAdmits(t *testing.T) {
	plain, gpus := grid(1, 1, 1, 8, 1), withGPUs(grid(2, 1, 1, 8, 1), 2)
	plain.Name, gpus.Name = "plain", "gpus"
	c := NewCluster(newState(t, gpus), newState(t, plain))
	gpu := []DeviceRequest{{Name: "gpu", Count: 2, Selector: selector(t, `device.driver == "gpu.example.com"`)}}
	for i, want := range []string{"gpus", "gpus"} {
		node, p, err := c.Place(t.Context(), Request{Name: fmt.Sprint("g", i), MilliCPU: 2000, Exclusive: true, Devices: gpu, Links: []LinkRequest{{By: LinkNVLink}}})
		if err != nil || node != want || len(p.NUMANodes) != 1 {
			t.Errorf("pair %d: got node %q on NUMA nodes %v, %v; want %q on one", i, node, p.NUMANodes, err, want)
		}
	}
	if node, _, err := c.Place(t.Context(), Request{Name: "cpu", MilliCPU: 2000, Exclusive: true}); err != nil || node != "plain" {
		t.Errorf("got %q, %v: work without devices belongs on the node without", node, err)
	}
	_, _, err := c.Place(t.Context(), Request{Name: "g2", Devices: gpu})
	var refusal *Unsatisfied
	if !errors.As(err, &refusal) || !strings.Contains(err.Error(), "node gpus") || !strings.Contains(err.Error(), "node plain") {
		t.Errorf("got %v, want a refusal that names both nodes", err)
	}
	before := len(c.Node("plain").Placements())
	var gang []Request
	for i := range 4 {
		gang = append(gang, Request{Name: fmt.Sprint("m", i), MilliCPU: 5000, Exclusive: true})
	}
	if _, _, err := c.PlaceAll(t.Context(), gang); err == nil {
		t.Error("a gang of 20 CPUs was placed on 17 free ones")
	}
	if n := len(c.Node("plain").Placements()); n != before {
		t.Errorf("%d members remain of a gang that was refused", n-before)
	}
	if nodes, _, err := c.PlaceAll(t.Context(), gang[:3]); err != nil || len(nodes) != 3 {
		t.Errorf("got %v, %v; want three members over two nodes", nodes, err)
	}
}

func TestRebaseReportsWhatIsLost(t *testing.T) {
	m := withGPUs(grid(2, 1, 1, 4, 1), 2)
	s := newState(t, m)
	mustPlace(t, s,
		Request{Name: "a", MilliCPU: 2000, Exclusive: true},
		Request{Name: "b", Devices: []DeviceRequest{{Name: "gpu", Selector: selector(t, `device.driver == "gpu.example.com"`), Count: 4}}},
		Request{Name: "c", MilliCPU: 500},
	)
	a, _ := s.Placement("a")
	changed := *m
	changed.CPUs, changed.Devices = nil, m.Devices[1:]
	for _, c := range m.CPUs {
		if c.ID != a.CPUs[0] {
			changed.CPUs = append(changed.CPUs, c)
		}
	}
	next, lost, err := s.Rebase(&changed)
	if err != nil || len(lost) != 2 || len(next.Placements()) != 1 {
		t.Fatalf("got %d lost of 3 and %v, want a and b", len(lost), err)
	}
	if p, err := next.Replace(t.Context(), lost[0]); err != nil || len(p.CPUs) != 2 {
		t.Errorf("a: got %v, %v; want two other CPUs", p.CPUs, err)
	}
	if _, err := next.Replace(t.Context(), lost[1]); err == nil || !strings.Contains(err.Error(), "device gpu0.0 is gone") || !strings.Contains(err.Error(), "4 asked for, 3 of") {
		t.Errorf("b: got %v, want the lost device and what is left", err)
	}
}
