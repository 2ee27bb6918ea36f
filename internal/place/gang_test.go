package place

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"testing"
	"time"
)

// TestGangThatGreedRefuses is a gang that fits on its NUMA nodes in one way
// only, and not with each member where it fits best.
func TestGangThatGreedRefuses(t *testing.T) {
	m := &Machine{}
	for node, amounts := range [][2]int{{11, 53}, {4, 17}, {6, 24}} {
		m.NUMA = append(m.NUMA, NUMANode{ID: node, Memory: int64(amounts[1]) << 30})
		for range amounts[0] {
			m.CPUs = append(m.CPUs, CPU{ID: len(m.CPUs), Core: len(m.CPUs), NUMA: node, Package: node, Cache: node})
		}
	}
	m.NUMA = append(m.NUMA, NUMANode{ID: 3})
	m.CPUs = append(m.CPUs, CPU{ID: len(m.CPUs), Core: len(m.CPUs), NUMA: 3, Package: 3, Cache: 3, Reserved: true})
	s := newState(t, m)
	member := func(name string, cpus, gib int64) Request {
		return Request{Name: name, MilliCPU: cpus * 1000, Exclusive: true, Memory: gib << 30, OneNode: true}
	}
	got, err := s.PlaceAll(t.Context(), []Request{member("m0", 2, 33), member("m1", 5, 20), member("m2", 4, 21)})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{0, 0, 2} {
		if got[i].Request.Name != fmt.Sprint("m", i) || got[i].NUMANodes[0] != want || got[i].Reason == "" {
			t.Errorf("got %s on NUMA nodes %v because %q, want m%d on %d", got[i].Request.Name, got[i].NUMANodes, got[i].Reason, i, want)
		}
	}
	checkState(t, s)
}

// gangCase is a machine of independent NUMA nodes and a gang, small enough for
// an exhaustive oracle.
type gangCase struct {
	m    *Machine
	gang []Request
	gpus []int // of each node
}

func randomGang(t *testing.T, r *rand.Rand) gangCase {
	var c gangCase
	c.m = &Machine{}
	for node := range 2 + r.Intn(3) {
		c.m.NUMA = append(c.m.NUMA, NUMANode{ID: node, Memory: int64(r.Intn(50)) << 30})
		for range r.Intn(10) {
			id := len(c.m.CPUs)
			c.m.CPUs = append(c.m.CPUs, CPU{ID: id, Core: id, NUMA: node, Package: node, Cache: node})
		}
		c.gpus = append(c.gpus, r.Intn(3))
		for i := range c.gpus[node] {
			c.m.Devices = append(c.m.Devices, Device{ID: fmt.Sprintf("gpu%d.%d", node, i), Driver: "gpu.example.com", NUMA: node})
		}
	}
	id, node := len(c.m.CPUs), len(c.m.NUMA) // one CPU that stays with the system
	c.m.NUMA = append(c.m.NUMA, NUMANode{ID: node})
	c.m.CPUs = append(c.m.CPUs, CPU{ID: id, Core: id, NUMA: node, Package: node, Cache: node, Reserved: true})
	c.gpus = append(c.gpus, 0)
	for i := range 2 + r.Intn(4) {
		req := Request{Name: fmt.Sprint("m", i), MilliCPU: int64(1+r.Intn(6)) * 1000, Exclusive: true, Memory: int64(r.Intn(30)) << 30, OneNode: true}
		if r.Intn(3) == 0 {
			req.Devices = []DeviceRequest{{Name: "gpu", Selector: selector(t, `device.driver == "gpu.example.com"`)}}
		}
		c.gang = append(c.gang, req)
	}
	return c
}

// fits tries every node for every member.
func (c *gangCase) fits() bool {
	cpus, memory, gpus := make([]int64, len(c.m.NUMA)), make([]int64, len(c.m.NUMA)), make([]int, len(c.m.NUMA))
	for _, cpu := range c.m.CPUs {
		if !cpu.Reserved {
			cpus[cpu.NUMA] += 1000
		}
	}
	for n := range c.m.NUMA {
		memory[n], gpus[n] = c.m.NUMA[n].Memory, c.gpus[n]
	}
	var visit func(i int) bool
	visit = func(i int) bool {
		if i == len(c.gang) {
			return true
		}
		r := &c.gang[i]
		for n := range cpus {
			if cpus[n] < r.MilliCPU || memory[n] < r.Memory || gpus[n] < len(r.Devices) {
				continue
			}
			cpus[n], memory[n], gpus[n] = cpus[n]-r.MilliCPU, memory[n]-r.Memory, gpus[n]-len(r.Devices)
			if visit(i + 1) {
				return true
			}
			cpus[n], memory[n], gpus[n] = cpus[n]+r.MilliCPU, memory[n]+r.Memory, gpus[n]+len(r.Devices)
		}
		return false
	}
	return visit(0)
}

func TestGangsAgainstAllWays(t *testing.T) {
	r := rand.New(rand.NewSource(11))
	fitting := 0
	for i := range 1500 {
		c := randomGang(t, r)
		s := newState(t, c.m)
		given, err := s.PlaceAll(t.Context(), c.gang)
		want := c.fits()
		if (err == nil) != want {
			t.Fatalf("gang %d: got %v, want it placed: %v", i, err, want)
		}
		checkState(t, s)
		if !want {
			if len(s.Placements()) != 0 {
				t.Fatalf("gang %d: a refusal left something", i)
			}
			continue
		}
		fitting++
		for n, p := range given {
			if p.Request.Name != c.gang[n].Name || len(p.NUMANodes) != 1 || len(p.Devices) != len(c.gang[n].Devices) {
				t.Fatalf("gang %d: member %d got %+v", i, n, p)
			}
		}
	}
	if fitting < 300 {
		t.Errorf("%d gangs of 1500 fit: the test tests little", fitting)
	}
}

// TestSharedGangsMaySpan holds that members which may lie on several nodes leave
// a node to one that may not.
func TestSharedGangsMaySpan(t *testing.T) {
	m := grid(3, 1, 1, 4, 1)
	for i := range m.NUMA {
		m.NUMA[i].Memory = 10 << 30
	}
	s := newState(t, m)
	if _, err := s.PlaceAll(t.Context(), []Request{
		{Name: "wide", MilliCPU: 3000, Memory: 9 << 30}, {Name: "wide2", MilliCPU: 2500, Memory: 10 << 30}, {Name: "narrow", MilliCPU: 2000, Memory: 10 << 30, OneNode: true},
	}); err != nil {
		t.Error(err)
	}
}

// TestWorkEndsWithItsContext holds that a search in vain ends at once when its
// context does, and without that by its bounds.
func TestWorkEndsWithItsContext(t *testing.T) {
	m := wide(64, 8)
	ended, end := context.WithCancel(t.Context())
	end()
	s := newState(t, m)
	req := Request{Name: "x", MilliCPU: 8000, Exclusive: true, Devices: []DeviceRequest{{Name: "d", Count: 3}}}
	var gang []Request
	for i := range 48 {
		g := req
		g.Name = fmt.Sprint("g", i)
		gang = append(gang, g)
	}
	for name, call := range map[string]func(context.Context) error{
		"place":      func(ctx context.Context) error { _, err := s.Place(ctx, req); return err },
		"gang":       func(ctx context.Context) error { _, err := s.PlaceAll(ctx, gang); return err },
		"preempt":    func(ctx context.Context) error { _, err := s.Preempt(ctx, req, nil); return err },
		"defragment": func(ctx context.Context) error { _, err := s.Defragment(ctx, req); return err },
	} {
		if err := call(ended); !errors.Is(err, context.Canceled) || len(s.Placements()) > 0 {
			t.Errorf("%s: got %v with %d placements, want a context that has ended and none", name, err, len(s.Placements()))
		}
	}
}

// TestAbsurdRequestsEnd asks the largest machine for what no bound of a request
// forbids. The time allowed is many times what it takes.
func TestAbsurdRequestsEnd(t *testing.T) {
	m := grid(maxNUMA, 1, 1, 4, 2)
	for i := range maxDevices {
		m.Devices = append(m.Devices, Device{ID: fmt.Sprint("d", i), Driver: "gpu.example.com", NUMA: i, Path: []string{fmt.Sprint("root", i/8), fmt.Sprint("switch", i/2)}})
	}
	s := newState(t, m)
	var four []DeviceRequest
	for i := range maxDeviceRequests {
		four = append(four, DeviceRequest{Name: fmt.Sprint(i), Count: 16})
	}
	for name, req := range map[string]Request{
		"cpu":     {MilliCPU: maxMilliCPU, Exclusive: false},
		"cpus":    {MilliCPU: 4000 * maxNUMA, Exclusive: true},
		"memory":  {Memory: maxBytes},
		"pages":   {HugePages: []HugePages{{Size: 1, Bytes: maxBytes}}},
		"half":    {Devices: []DeviceRequest{{Name: "d", Count: maxDevices / 2}}},
		"linked":  {Devices: []DeviceRequest{{Name: "d", Count: maxDevices / 2}}, Links: []LinkRequest{{By: LinkRoot}}},
		"many":    {Devices: four},
		"pairs":   {Devices: four, Links: []LinkRequest{{By: LinkSwitch}}},
		"spread":  {MilliCPU: 2000 * maxNUMA, Exclusive: true, Memory: int64(maxNUMA) << 34, Devices: four[:4]},
		"partial": {MilliCPU: 1000, Devices: []DeviceRequest{{Name: "d", Count: 8}, {Name: "e", Count: 9}}, Links: []LinkRequest{{By: LinkRoot}}},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			req.Name = name
			if _, err := s.Try(ctx, req); errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			} else {
				t.Log(time.Since(began), err)
			}
		})
	}
}
