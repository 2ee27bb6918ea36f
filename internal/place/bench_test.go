package place

import (
	"fmt"
	"syscall"
	"testing"
)

// perCPU runs the loop of a benchmark and reports CPU time, which a loaded
// machine does not spoil, in place of time.
func perCPU(b *testing.B, once func()) {
	b.Helper()
	spent := func() int64 {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	start, n := spent(), 0
	for b.Loop() {
		once()
		n++
	}
	b.ReportMetric(float64(spent()-start)/1e6/float64(n), "CPU-ms/op")
	b.ReportMetric(0, "ns/op")
}

// wide is a machine with many NUMA nodes, devices of four kinds on each.
func wide(nodes, cpusPerNode int) *Machine {
	m := grid(nodes, 1, 1, cpusPerNode/2, 2)
	for _, n := range m.NUMA {
		for _, kind := range []string{"gpu", "nic", "npu", "fpga"} {
			for i := range 2 {
				m.Devices = append(m.Devices, Device{
					ID: fmt.Sprintf("%s%d.%d", kind, n.ID, i), Driver: kind + ".example.com", NUMA: n.ID,
					Path: []string{fmt.Sprint("root", n.ID), fmt.Sprint("switch", n.ID, ".", i)},
				})
			}
		}
	}
	return m
}

// BenchmarkAdmission decides on machines at which kubelet's topology manager
// takes minutes or never ends.
func BenchmarkAdmission(b *testing.B) {
	four := func(count int) (requests []DeviceRequest) {
		for _, kind := range []string{"gpu", "nic", "npu", "fpga"} {
			requests = append(requests, DeviceRequest{Name: kind, Count: count, Selector: selector(b, fmt.Sprintf("device.driver == %q", kind+".example.com"))})
		}
		return requests
	}
	cases := []struct {
		name string
		m    *Machine
		req  Request
	}{
		{"34nodes/one", wide(34, 32), Request{MilliCPU: 16000, Exclusive: true, Memory: 8 << 30}},
		{"34nodes/third", wide(34, 32), Request{MilliCPU: 300_000, Exclusive: true, Memory: 160 << 30}},
		{"34nodes/devices", wide(34, 32), Request{MilliCPU: 64_000, Exclusive: true, Memory: 20 << 30, Devices: four(3)}},
		{"8nodes/four-kinds", wide(8, 32), Request{MilliCPU: 40_000, Exclusive: true, Memory: 40 << 30, Devices: four(2)}},
		{"8nodes/four-kinds-linked", wide(8, 32), Request{MilliCPU: 4000, Exclusive: true, Devices: four(1), Links: []LinkRequest{{By: LinkSwitch}}}},
		{"8nodes/refused", wide(8, 32), Request{MilliCPU: 40_000, Exclusive: true, OneNode: true, Devices: four(2)}},
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			s := newState(b, c.m)
			c.req.Name = "x"
			perCPU(b, func() {
				if _, err := s.Try(b.Context(), c.req); (err != nil) != c.req.OneNode {
					b.Fatal(err)
				}
			})
		})
	}
}

// BenchmarkPreempt makes room on a full machine with a hundred batch jobs.
func BenchmarkPreempt(b *testing.B) {
	s := newState(b, wide(8, 32))
	for i := range 100 {
		if _, err := s.Place(b.Context(), Request{Name: fmt.Sprint("batch", i), Class: Batch, Priority: i % 5, MilliCPU: 2000, Exclusive: true, Memory: 1 << 30}); err != nil {
			b.Fatal(err)
		}
	}
	req := Request{Name: "web", Class: Interactive, MilliCPU: 70_000, Exclusive: true, Memory: 4 << 30}
	perCPU(b, func() {
		p, err := s.Preempt(b.Context(), req, nil)
		if err != nil {
			b.Fatal(err)
		}
		if len(p.Victims) == 0 {
			b.Fatal("nobody had to stop")
		}
	})
}

// BenchmarkGang places and takes back a gang on one machine, and one of 512
// members on a fleet.
func BenchmarkGang(b *testing.B) {
	b.Run("machine/64", func(b *testing.B) {
		s := newState(b, wide(8, 32))
		var gang []Request
		for i := range 64 {
			gang = append(gang, Request{Name: fmt.Sprint("m", i), MilliCPU: 2000, Exclusive: true, Memory: 1 << 30})
		}
		perCPU(b, func() {
			if _, err := s.PlaceAll(b.Context(), gang); err != nil {
				b.Fatal(err)
			}
			for _, m := range gang {
				s.Release(m.Name)
			}
		})
	})
	b.Run("fleet/512", func(b *testing.B) {
		var nodes []FleetNode
		for i := range 1213 {
			nodes = append(nodes, FleetNode{Name: fmt.Sprint("n", i), MilliCPU: 96000, Memory: 1 << 30, GPUs: 8, Model: "A"})
		}
		f, err := NewFleet(nodes, nil)
		if err != nil {
			b.Fatal(err)
		}
		a, err := f.Ask(Shape{MilliCPU: 8000, GPUs: 1, MilliGPU: 1000})
		if err != nil {
			b.Fatal(err)
		}
		f.SetScorer(NewLeastLoss([]Demand{{Ask: a, Count: 1}}, f))
		gang := make([]Ask, 512)
		for i := range gang {
			gang[i] = a
		}
		perCPU(b, func() {
			spots, ok := f.PlaceAll(gang)
			if !ok {
				b.Fatal("the gang does not fit")
			}
			for i, spot := range spots {
				f.Take(&gang[i], spot)
			}
		})
	})
}
