package place

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// grid returns a machine of packages × NUMA nodes × caches × cores × threads,
// numbered as Linux does on most servers: first threads of all cores, then the
// second ones. Each node has 16Gi.
func grid(packages, nodes, caches, cores, threads int) *Machine {
	m := &Machine{Name: "grid"}
	total := packages * nodes * caches * cores
	for t := range threads {
		for c := range total {
			m.CPUs = append(m.CPUs, CPU{
				ID: t*total + c, Core: c, Cache: c / cores,
				NUMA: c / (cores * caches), Package: c / (cores * caches * nodes),
			})
		}
	}
	for n := range packages * nodes {
		node := NUMANode{ID: n, Memory: 16 << 30, Distance: map[int]int{}}
		for other := range packages * nodes {
			if other != n && other/nodes == n/nodes {
				node.Distance[other] = 12
			}
		}
		m.NUMA = append(m.NUMA, node)
	}
	return m
}

// withGPUs adds GPUs to every NUMA node, in pairs under a PCIe switch with a
// network card, joined by NVLink in pairs.
func withGPUs(m *Machine, perNode int) *Machine {
	for _, n := range m.NUMA {
		for g := range perNode {
			root, sw := fmt.Sprintf("pci%02x", n.ID), fmt.Sprintf("sw%d.%d", n.ID, g/2)
			m.Devices = append(m.Devices, Device{
				ID: fmt.Sprintf("gpu%d.%d", n.ID, g), Driver: "gpu.example.com", NUMA: n.ID, Path: []string{root, sw},
				Attributes: map[string]any{"model": "A", "resource.kubernetes.io/numaNode": int64(n.ID)},
				Capacity:   map[string]int64{"memory": 80 << 30}, Memory: 80 << 30, Shares: 8,
				Profiles: []Profile{
					{Name: "1g.10gb", Slices: 1, Starts: []int{0, 1, 2, 3, 4, 5, 6}, Memory: 10 << 30},
					{Name: "3g.40gb", Slices: 4, Starts: []int{0, 4}, Memory: 40 << 30},
				},
			})
			if g%2 == 1 {
				m.Links = append(m.Links, Link{A: fmt.Sprintf("gpu%d.%d", n.ID, g-1), B: fmt.Sprintf("gpu%d.%d", n.ID, g), Kind: "nvlink", Count: 4})
				m.Devices = append(m.Devices, Device{ID: fmt.Sprintf("nic%d.%d", n.ID, g/2), Driver: "nic.example.com", NUMA: n.ID, Path: []string{root, sw}})
			}
		}
	}
	return m
}

func newState(t testing.TB, m *Machine) *State {
	t.Helper()
	s, err := NewState(m)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func selector(t testing.TB, src string) *Selector {
	t.Helper()
	sel, err := CompileSelector(src)
	if err != nil {
		t.Fatal(err)
	}
	return sel
}

func deviceIDs(p Placement) []string {
	var ids []string
	for _, g := range p.Devices {
		ids = append(ids, g.ID)
	}
	return ids
}

func TestPlaceChoosesTogether(t *testing.T) {
	s := newState(t, withGPUs(grid(2, 2, 2, 4, 2), 2))
	gpu := selector(t, `device.driver == "gpu.example.com" && device.capacity["gpu.example.com"].memory.compareTo(quantity("40Gi")) >= 0`)
	nic := selector(t, `device.driver == "nic.example.com"`)
	p, err := s.Place(t.Context(), Request{
		Name: "a", MilliCPU: 4000, Exclusive: true, Memory: 8 << 30,
		Devices: []DeviceRequest{{Name: "gpu", Selector: gpu, Count: 2}, {Name: "nic", Selector: nic}},
		Links:   []LinkRequest{{Between: []string{"gpu"}, By: LinkNVLink}, {By: LinkSwitch}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := deviceIDs(p), []string{"gpu0.0", "gpu0.1", "nic0.0"}; !slices.Equal(got, want) {
		t.Errorf("got devices %v, want %v", got, want)
	}
	if want := []int{1, 2, 33, 34}; !slices.Equal(p.CPUs, want) {
		t.Errorf("got CPUs %v, want two cores of the cache that the system's CPU 0 broke, %v", p.CPUs, want)
	}
	if want := []int{0}; !slices.Equal(p.NUMANodes, want) {
		t.Errorf("got NUMA nodes %v, want %v", p.NUMANodes, want)
	}
	if p.RunnerUp == nil || p.Reason == "" {
		t.Errorf("got reason %q and runner-up %v, want both", p.Reason, p.RunnerUp)
	}
	b, err := s.Place(t.Context(), Request{Name: "b", MilliCPU: 2000, Exclusive: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(b.CPUs) != 2 || slices.Contains(p.CPUs, b.CPUs[0]) {
		t.Errorf("got CPUs %v beside %v", b.CPUs, p.CPUs)
	}
}

func TestSharedPlacementsFollowTheExclusive(t *testing.T) {
	s := newState(t, grid(1, 1, 1, 4, 1))
	if _, err := s.Place(t.Context(), Request{Name: "shared", MilliCPU: 1500}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Place(t.Context(), Request{Name: "exclusive", MilliCPU: 2000, Exclusive: true}); err != nil {
		t.Fatal(err)
	}
	p, _ := s.Placement("shared")
	if want := []int{0, 1}; !slices.Equal(p.CPUs, want) {
		t.Errorf("got shared CPUs %v, want %v", p.CPUs, want)
	}
	var refusal *Unsatisfied
	if _, err := s.Place(t.Context(), Request{Name: "third", MilliCPU: 1000, Exclusive: true}); !errors.As(err, &refusal) {
		t.Fatalf("got %v, want a refusal: two CPUs are promised to shared work", err)
	}
	s.Release("exclusive")
	p, _ = s.Placement("shared")
	if want := []int{0, 1, 2, 3}; !slices.Equal(p.CPUs, want) {
		t.Errorf("after the release got shared CPUs %v, want %v", p.CPUs, want)
	}
}

func TestWholeCoresKeepSiblingsIdle(t *testing.T) {
	s := newState(t, grid(1, 1, 1, 4, 2))
	p, err := s.Place(t.Context(), Request{Name: "rt", MilliCPU: 1000, Exclusive: true, WholeCore: true})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.CPUs, []int{1}) || !slices.Equal(p.Held, []int{5}) {
		t.Errorf("got CPUs %v and idle siblings %v, want [1] and [5]", p.CPUs, p.Held)
	}
	if p.RunnerUp == nil || !slices.Equal(p.RunnerUp.CPUs, []int{2}) {
		t.Errorf("got the runner-up %+v, want CPU 2: the sibling is no alternative", p.RunnerUp)
	}
	if slices.Contains(s.Pool(), 5) {
		t.Errorf("the idle sibling is in the pool %v", s.Pool())
	}
}

func TestRefusalsNameTheConstraint(t *testing.T) {
	withHolder := func(t *testing.T, m *Machine) *State {
		s := newState(t, m)
		if _, err := s.Place(t.Context(), Request{Name: "holder", MilliCPU: 6000, Exclusive: true, Memory: 10 << 30}); err != nil {
			t.Fatal(err)
		}
		return s
	}
	oneNode := func() *Machine { return withGPUs(grid(1, 1, 1, 8, 1), 2) }
	cases := []struct {
		name string
		req  Request
		want []string
	}{
		{"cpu", Request{MilliCPU: 3000, Exclusive: true}, []string{"cpu:", `"holder" (6)`, "at most 1"}},
		{"too many CPUs", Request{MilliCPU: 99000}, []string{"whole machine has 8"}},
		{"memory", Request{Memory: 12 << 30}, []string{"memory: 12 GiB of dram", "6 GiB are free of 16 GiB", "release 6 GiB"}},
		{"memory kind", Request{Memory: 1 << 30, MemKind: HBM}, []string{"this machine has dram only"}},
		{"both at once", Request{MilliCPU: 99000, Memory: 99 << 30}, []string{"cpu:", "memory:"}},
		{"kind", Request{MilliCPU: 1000, CoreKind: "efficiency"}, []string{"of kind efficiency", "8 of one kind"}},
		{"huge pages", Request{HugePages: []HugePages{{Size: 2 << 20, Bytes: 4 << 20}}}, []string{"huge pages of 2 MiB: 4 MiB are asked for, 0 B are free (set more such pages aside by spec.hugePages of the Machine file)"}},
		{"device", Request{Devices: []DeviceRequest{{Name: "x", Selector: selector(t, `device.driver == "tpu"`)}}}, []string{`device "x"`, "matches none of 3 devices", "2 of gpu.example.com"}},
		{"attribute", Request{Devices: []DeviceRequest{{Name: "x", Selector: selector(t, `device.attributes["gpu.example.com"].colour == "red"`)}}}, []string{"no such attribute", "colour"}},
		{"count", Request{Devices: []DeviceRequest{{Name: "x", Selector: selector(t, `device.driver == "gpu.example.com"`), Count: 3}}}, []string{"3 asked for, 2 of"}},
		{"partition", Request{Devices: []DeviceRequest{{Name: "x", Fraction: Fraction{Profile: "7g.80gb"}}}}, []string{"a partition 7g.80gb", "cut into"}},
		{"link", Request{Devices: []DeviceRequest{{Name: "x", Count: 3}}, Links: []LinkRequest{{By: LinkNVLink}}}, []string{"link nvlink", "at most 2"}},
		{"negative", Request{MilliCPU: -1}, []string{"cpu: -1"}},
		{"overflow", Request{Memory: 1<<63 - 1}, []string{"memory: 9223372036854775807"}},
		{"contradiction", Request{MilliCPU: 500, Exclusive: true}, []string{"exclusive CPUs are whole"}},
		{"name taken", Request{Name: "holder"}, []string{"name is in use"}},
		{"apart", Request{MilliCPU: 100, Apart: []string{"holder"}}, []string{"0 free"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := withHolder(t, oneNode())
			if c.req.Name == "" {
				c.req.Name = "req"
			}
			before := s.Placements()
			_, err := s.Place(t.Context(), c.req)
			var refusal *Unsatisfied
			if !errors.As(err, &refusal) {
				t.Fatalf("got %v, want a refusal", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want it to contain %q", err, want)
				}
			}
			if diff := cmp.Diff(before, s.Placements(), cmp.AllowUnexported(Selector{})); diff != "" {
				t.Errorf("the refusal changed the state (-before +after):\n%s", diff)
			}
		})
	}
}

func TestOddMachines(t *testing.T) {
	one := &Machine{CPUs: []CPU{{ID: 0}}}
	s := newState(t, one)
	if _, err := s.Place(t.Context(), Request{Name: "x", MilliCPU: 1000, Exclusive: true}); err == nil {
		t.Error("the only CPU was given away exclusively")
	}
	if p, err := s.Place(t.Context(), Request{Name: "y", MilliCPU: 1000}); err != nil || !slices.Equal(p.CPUs, []int{0}) {
		t.Errorf("got %v, %v; want the shared CPU 0", p.CPUs, err)
	}
	if s := newState(t, &Machine{}); s != nil {
		if _, err := s.Place(t.Context(), Request{Name: "x", MilliCPU: 1}); err == nil {
			t.Error("a machine without CPUs gave some")
		}
	}
	if _, err := NewState(&Machine{CPUs: []CPU{{ID: 1}, {ID: 1}}}); err == nil {
		t.Error("a CPU listed twice was accepted")
	}
}

func TestFractions(t *testing.T) {
	s := newState(t, withGPUs(grid(1, 1, 1, 8, 1), 2))
	gpu := selector(t, `device.driver == "gpu.example.com"`)
	place := func(name string, f Fraction) string {
		t.Helper()
		p, err := s.Place(t.Context(), Request{Name: name, Devices: []DeviceRequest{{Name: "gpu", Selector: gpu, Fraction: f}}})
		if err != nil {
			return "refused"
		}
		return fmt.Sprintf("%s@%d", p.Devices[0].ID, p.Devices[0].Start)
	}
	got := []string{
		place("a", Fraction{Milli: 500, Memory: 40 << 30}),
		place("b", Fraction{Milli: 300}),                   // fills the broken one
		place("c", Fraction{Milli: 100, Memory: 20 << 30}), // its memory is full: the other
		place("d", Fraction{Milli: 700}),                   // the other
		place("e", Fraction{Milli: 300}),                   // nowhere
		place("f", Fraction{Profile: "1g.10gb"}),           // both are shared by software
	}
	want := []string{"gpu0.0@0", "gpu0.0@0", "gpu0.1@0", "gpu0.1@0", "refused", "refused"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("placements (-want +got):\n%s", diff)
	}
	for _, n := range []string{"c", "d"} {
		s.Release(n)
	}
	if got := place("g", Fraction{Profile: "1g.10gb"}); got != "gpu0.1@0" {
		t.Errorf("got the small partition at %s, want gpu0.1@0", got)
	}
	if got := place("h", Fraction{Profile: "1g.10gb"}); got != "gpu0.1@1" {
		t.Errorf("got the next small partition at %s, want it beside the first", got)
	}
	if got := place("i", Fraction{Profile: "3g.40gb"}); got != "gpu0.1@4" {
		t.Errorf("got the large partition at %s, want gpu0.1@4", got)
	}
}

func TestAdopt(t *testing.T) {
	m := withGPUs(grid(2, 1, 1, 4, 2), 2)
	s := newState(t, m)
	reqs := []Request{
		{Name: "a", MilliCPU: 2000, Exclusive: true, Memory: 4 << 30},
		{Name: "b", MilliCPU: 500, Devices: []DeviceRequest{{Name: "gpu", Selector: selector(t, `device.driver == "gpu.example.com"`), Count: 2}}},
		{Name: "c", Devices: []DeviceRequest{{Name: "g", Fraction: Fraction{Profile: "1g.10gb"}}}},
	}
	var made []Placement
	for _, r := range reqs {
		p, err := s.Place(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, p)
	}
	again := newState(t, m)
	for _, p := range made {
		if err := again.Adopt(p); err != nil {
			t.Fatal(err)
		}
		if err := again.Adopt(p); err == nil {
			t.Errorf("%q was adopted twice", p.Request.Name)
		}
	}
	if diff := cmp.Diff(s.Placements(), again.Placements(), cmp.AllowUnexported(Selector{}), cmp.Comparer(func(a, b *Selector) bool { return a.String() == b.String() })); diff != "" {
		t.Errorf("after adoption (-first +again):\n%s", diff)
	}
	for _, p := range made {
		again.Release(p.Request.Name)
	}
	fresh := newState(t, m)
	if diff := cmp.Diff(fresh.use, again.use, cmp.AllowUnexported(deviceUse{})); diff != "" || !slices.Equal(fresh.memory, again.memory) {
		t.Errorf("released everything, yet (-fresh +got):\n%s", diff)
	}
	lost := *m
	lost.Devices = m.Devices[2:]
	if err := newState(t, &lost).Adopt(made[1]); err == nil || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("got %v, want the lost device named", err)
	}
}

func TestCPUSelectors(t *testing.T) {
	s := newState(t, grid(2, 1, 2, 4, 2))
	cases := []struct {
		src       string
		exclusive bool
		want      string // CPUs, or part of the refusal
	}{
		{`device.attributes["dra.cpu"].socketID == 1 && device.attributes["dra.cpu"].cacheL3ID == 3`, true, "12-13,28-29"},
		{`device.attributes["resource.kubernetes.io"].numaNode == 1`, false, "8-15,24-31"},
		{`device.attributes["dra.cpu"].coreType == "e-core"`, true, `that match device.attributes["dra.cpu"].coreType == "e-core" asked for, 0 free`},
		{`device.attributes["dra.cpu"].cpuID < 3`, false, "0 free"},
	}
	for i, c := range cases {
		p, err := s.Try(t.Context(), Request{Name: fmt.Sprint(i), MilliCPU: 4000, Exclusive: c.exclusive, CPUs: selector(t, c.src)})
		if err != nil {
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want %q", c.src, err, c.want)
			}
			continue
		}
		if got := FormatCPUs(p.CPUs); got != c.want {
			t.Errorf("%s: got CPUs %s, want %s", c.src, got, c.want)
		}
	}
}
