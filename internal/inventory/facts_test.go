package inventory

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/hardware/hardwaretest"
	"oscine.dev/oscine/internal/place"
)

const gib = int64(1) << 30

// stateOf reads a described machine as a node would and returns what placement
// has of it.
func stateOf(t *testing.T, tree *hardwaretest.Tree) *place.State {
	t.Helper()
	s, err := place.NewState(Machine(discover(t, tree), "test"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func selector(t *testing.T, text string) *place.Selector {
	t.Helper()
	s, err := place.CompileSelector(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// refused places a request and returns the words of its refusal, "" for none.
func refused(t *testing.T, s *place.State, req place.Request) string {
	t.Helper()
	_, err := s.Try(t.Context(), req)
	if err != nil {
		return err.Error()
	}
	return ""
}

func wants(t *testing.T, got string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(got, part) {
			t.Errorf("got %q, want %q in it", got, part)
		}
	}
}

// TestGPUMemoryIsNoDRAM: the driver of a Grace machine gives the GPU's memory to
// the kernel as a node.
func TestGPUMemoryIsNoDRAM(t *testing.T) {
	tree := hardwaretest.Server8GPU()
	tree.File("/sys/devices/system/node/online", "0-2")
	for n, row := range []string{"10 21 80", "21 10 80", "80 80 10"} {
		tree.File(fmt.Sprintf("/sys/devices/system/node/node%d/distance", n), row)
	}
	tree.File("/sys/devices/system/node/node2/cpumap", "0")
	tree.Filef("/sys/devices/system/node/node2/meminfo", "Node 2 MemTotal:       %d kB", 96<<20)
	tree.File("/proc/driver/nvidia/gpus/0000:13:00.0/numa_status", "Node: 2\nStatus: online")
	s := stateOf(t, tree)
	wants(t, refused(t, s, place.Request{Name: "x", Memory: (2*1024 - 128 + 50) * gib}), "are free of 1.88 TiB")
	if got := refused(t, s, place.Request{Name: "x", Memory: 1900 * gib}); got != "" {
		t.Error(got)
	}
}

func TestKindsOfMemory(t *testing.T) {
	online := hardware.NewSet(0, 1)
	m := &hardware.Machine{Online: online, Present: online}
	for _, c := range []struct {
		word string
		own  hardware.Set
		want place.MemoryKind
	}{
		{"", online, place.DRAM}, {"DRAM", hardware.Set{}, place.DRAM}, {"HBM", online, place.HBM}, {"MCDRAM", hardware.Set{}, place.HBM},
		{"NVM", hardware.Set{}, place.PMEM}, {"CXL-NVM", hardware.Set{}, place.PMEM}, {"CXL-DRAM", hardware.Set{}, place.CXL},
		{"SPM", hardware.Set{}, place.OtherMemory}, {"", hardware.Set{}, place.OtherMemory}, {"something new", online, place.OtherMemory},
	} {
		if got := memoryKind(m, &hardware.Node{Memory: c.word, Own: c.own}); got != c.want {
			t.Errorf("%q with CPUs %s: got %s, want %s", c.word, c.own, got, c.want)
		}
	}
	m.Present = hardware.NewSet(0, 1, 2) // CPU 2 is offline and may be of that node
	if got := memoryKind(m, &hardware.Node{}); got != place.DRAM {
		t.Errorf("a node whose CPUs may be offline: got %s, want DRAM", got)
	}
}

func TestHugePagesInUse(t *testing.T) {
	tree := hardwaretest.Server8GPU() // 64 on each node
	tree.File("/sys/devices/system/node/node0/hugepages/hugepages-1048576kB/free_hugepages", "0")
	tree.File("/sys/devices/system/node/node1/hugepages/hugepages-1048576kB/free_hugepages", "10")
	s := stateOf(t, tree)
	ask := func(n int64) place.Request {
		return place.Request{Name: "x", HugePages: []place.HugePages{{Size: gib, Bytes: n * gib}}}
	}
	wants(t, refused(t, s, ask(11)), "11 GiB are asked for, 10 GiB are free", "118 GiB of them outside of placement")
	if got := refused(t, s, ask(10)); got != "" {
		t.Error(got)
	}
	// A workload from before the restart uses its pages already.
	before := place.Placement{Request: ask(40), Memory: []place.MemoryGrant{{Node: 1, PageSize: gib, Bytes: 40 * gib}}}
	before.Request.Name = "before"
	if err := s.Adopt(before); err != nil {
		t.Fatal(err)
	}
	wants(t, refused(t, s, ask(11)), "10 GiB are free")
	for range 2 { // what is put back after an attempt is not counted again
		s.Release("before")
		if got := refused(t, s, ask(50)); got != "" {
			t.Error(got)
		}
		if err := s.Adopt(before); err != nil {
			t.Fatal(err)
		}
	}
	wants(t, refused(t, s, ask(11)), "10 GiB are free")

	// So does one of which a preview knows only the request.
	s = stateOf(t, tree)
	running := ask(60)
	running.Name = "running"
	if _, err := s.PlaceRunning(t.Context(), running); err != nil {
		t.Error(err)
	}
	wants(t, refused(t, s, ask(11)), "10 GiB are free")
	if _, err := s.PlaceRunning(t.Context(), ask(70)); err == nil {
		t.Error("70 of 128 pages were given beside 60")
	}
	wants(t, refused(t, s, ask(11)), "10 GiB are free")
}

func TestIsolatedCPUs(t *testing.T) {
	tree := hardwaretest.Server8GPU() // CPUs 0-31,64-95 and 32-63,96-127
	tree.File("/sys/devices/system/cpu/isolated", "0-3,64-67")
	tree.File("/sys/devices/system/cpu/nohz_full", "32-33,96-97")
	s := stateOf(t, tree)
	if got, want := len(s.Pool()), 128-8-4; got != want {
		t.Errorf("%d CPUs are shared, want %d", got, want)
	}
	wants(t, refused(t, s, place.Request{Name: "x", MilliCPU: 117_000}), "116 free")
	place1 := func(name string, class place.Class) int {
		p, err := s.Place(t.Context(), place.Request{Name: name, Class: class, MilliCPU: 1000, Exclusive: true, WholeCore: class == place.Realtime})
		if err != nil {
			t.Fatal(err)
		}
		return p.CPUs[0]
	}
	isolated := hardware.NewSet(0, 1, 2, 3, 32, 33, 64, 65, 66, 67, 96, 97)
	if cpu := place1("rt", place.Realtime); !isolated.Has(cpu) {
		t.Errorf("real-time work got CPU %d, which is not isolated", cpu)
	}
	if cpu := place1("web", place.Interactive); isolated.Has(cpu) {
		t.Errorf("interactive work got the isolated CPU %d beside free ones", cpu)
	}
	// All that is left goes to the one that asks for it: of 128, one core and one CPU
	// are taken, the lowest shared one is the system's.
	if got := refused(t, s, place.Request{Name: "all", MilliCPU: 124_000, Exclusive: true}); got != "" {
		t.Error(got)
	}

	tree.File("/sys/devices/system/cpu/isolated", "0-127")
	if got := len(stateOf(t, tree).Pool()); got != 128 {
		t.Errorf("%d CPUs are shared of a machine whose CPUs are all isolated, want all", got)
	}
}

func TestCoresThatOthersShare(t *testing.T) {
	tree := hardwaretest.Server8GPU()
	tree.File("/proc/self/cgroup", "0::/box")
	tree.File("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu")
	tree.File("/sys/fs/cgroup/cpuset.cpus.effective", "0-127")
	tree.File("/sys/fs/cgroup/box/cpuset.cpus.effective", "0-5,64-65") // siblings of 2-5 are others'
	tree.File("/sys/fs/cgroup/box/cpuset.mems.effective", "0-1")
	s := stateOf(t, tree)
	core := func(n int64) place.Request {
		return place.Request{Name: "rt", Class: place.Realtime, MilliCPU: n * 1000, Exclusive: true, WholeCore: true}
	}
	p, err := s.Try(t.Context(), core(1))
	if err != nil || !slices.Equal(p.CPUs, []int{1}) || !slices.Equal(p.Held, []int{65}) {
		t.Errorf("got CPUs %v and %v, %v; want the one whole core that is not the system's", p.CPUs, p.Held, err)
	}
	wants(t, refused(t, s, core(5)), "sibling threads of 4 of the 8 CPUs", "outside this node's cpuset")
	p, err = s.Try(t.Context(), place.Request{Name: "some", MilliCPU: 6000, Exclusive: true})
	if err != nil {
		t.Fatal(err)
	}
	wants(t, p.Reason, "work of others runs on the sibling threads of")

	// A sibling that is offline disturbs nobody.
	tree.File("/sys/devices/system/cpu/online", "0-65")
	if got := refused(t, stateOf(t, tree), core(5)); got != "" {
		t.Error(got)
	}
}

func TestPhysicalFunctionsBesideVirtualOnes(t *testing.T) {
	tree := hardwaretest.Server8GPU()
	const parent = "pci0000:e0/0000:e0:01.0"
	tree.PCI(hardwaretest.PCI{Parent: "pci0000:e0", Address: "0000:e0:01.0", Class: "060400", Vendor: "8086", Device: "352a"})
	function := func(address, class, vendor, device, driver string) string {
		return tree.PCI(hardwaretest.PCI{Parent: parent, Address: address, Class: class, Vendor: vendor, Device: device, Driver: driver, Node: 1})
	}
	for _, card := range []struct{ bus, class, vendor, device, driver string }{
		{"e1", "038000", "8086", "56c0", "i915"}, {"e2", "020000", "15b3", "101d", "mlx5_core"},
	} {
		pf := function("0000:"+card.bus+":00.0", card.class, card.vendor, card.device, card.driver)
		tree.File(pf+"/sriov_totalvfs", "31")
		tree.File(pf+"/sriov_numvfs", "4")
		if card.class == "038000" {
			tree.Node(pf, "drm", "renderD200", "dri/renderD200")
		}
		for n := 1; n <= 4; n++ {
			vf := function(fmt.Sprintf("0000:%s:00.%d", card.bus, n), card.class, card.vendor, card.device, card.driver)
			tree.Link(vf+"/physfn", pf)
			if card.class == "038000" {
				tree.Node(vf, "drm", fmt.Sprintf("renderD%d", 200+n), fmt.Sprintf("dri/renderD%d", 200+n))
			}
		}
	}
	s := stateOf(t, tree)
	counts := map[string]int{}
	for _, d := range s.Machine().Devices {
		bus, _ := d.Attributes[hardware.AttributePCIBusID].(string)
		switch {
		case strings.HasSuffix(bus, "e1:00.0"), strings.HasSuffix(bus, "e2:00.0"):
			t.Errorf("the physical function %s is given out beside its virtual ones", bus)
		case strings.Contains(bus, ":e1:"):
			counts["gpu"]++
			if d.Memory != 0 {
				t.Errorf("the virtual function %s is given out with %d bytes, those of the card", bus, d.Memory)
			}
		case strings.Contains(bus, ":e2:"):
			counts["nic"]++
		}
	}
	if counts["gpu"] != 4 || counts["nic"] != 4 {
		t.Errorf("got virtual functions %v, want four of each", counts)
	}
}

func TestUnknownNUMANodes(t *testing.T) {
	tree := hardwaretest.Server8GPU()
	for name := range tree.Files { // the adapters, one behind each switch
		if strings.HasSuffix(name, "/class") && strings.HasPrefix(tree.Files[name], "0x0207") {
			tree.File(filepath.Dir(name)+"/numa_node", "-1")
			tree.Remove(filepath.Dir(name) + "/local_cpus")
		}
	}
	for name := range tree.Files { // and what is above them
		if strings.HasSuffix(name, "/class") && strings.HasPrefix(tree.Files[name], "0x0604") {
			tree.Remove(filepath.Dir(name) + "/local_cpus")
		}
	}
	s := stateOf(t, tree)
	ask := func(by place.LinkKind) place.Request {
		return place.Request{Name: "x", MilliCPU: 2000, Exclusive: true, OneNode: true, Links: []place.LinkRequest{{By: by}}, Devices: []place.DeviceRequest{
			{Name: "g", Selector: selector(t, `device.driver == "gpu.nvidia.com"`)},
			{Name: "n", Selector: selector(t, `device.attributes["oscine.dev"].kind == "nic"`)},
		}}
	}
	wants(t, refused(t, s, ask(place.LinkNUMA)), "the NUMA node of ib0, ib1, ib2, ib3 is unknown", "the firmware names none")
	p, err := s.Try(t.Context(), ask(place.LinkSwitch))
	if err != nil {
		t.Fatal(err)
	}
	wants(t, p.Reason, "but the node of ib")
	if strings.Contains(p.Reason, "all on NUMA node") {
		t.Errorf("got %q of a device whose node nobody knows", p.Reason)
	}

	single := &hardware.Machine{Nodes: []hardware.Node{{ID: 0, Memory: gpuMemory}, {ID: 3}}}
	if got := nodeOf(single, -1); got != 3 {
		t.Errorf("got node %d for a device of a machine with one, want 3", got)
	}
}

func TestUnknownCaches(t *testing.T) {
	tree := hardwaretest.Server8GPU()
	for id := range 128 {
		tree.Remove(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/cache", id))
	}
	s := stateOf(t, tree)
	p, err := s.Try(t.Context(), place.Request{Name: "x", MilliCPU: 8000, Exclusive: true})
	if err != nil {
		t.Fatal(err)
	}
	wants(t, p.Reason, "4 cores; it is unknown which share a cache")
	wants(t, refused(t, s, place.Request{Name: "x", MilliCPU: 1000, Exclusive: true, CPUs: selector(t, `device.attributes["dra.cpu"].cacheL3ID == 0`)}), "0 free")
}

func TestNumbersOfInstances(t *testing.T) {
	gpu := hardware.Accelerator{ID: "gpu0", Kind: "gpu", Vendor: "NVIDIA", Bus: "virtual", Health: hardware.Health{State: "ok"}, Node: -1, Profiles: []hardware.PartitionProfile{
		{Name: "1g.5gb", Slices: 1, Starts: []int{0, 1, 2, 3, 4, 5, 6}, Instances: 7},
		{Name: "2g.10gb", Slices: 2, Starts: []int{0, 2, 4}, Instances: 2},
		{Name: "1g.5gb+me", Slices: 1, Starts: []int{0, 1, 2, 3, 4, 5, 6}},
	}}
	m := &hardware.Machine{Online: hardware.NewSet(0), Allowed: hardware.NewSet(0), CPUs: []hardware.CPU{{Allowed: true}}, Accelerators: []hardware.Accelerator{gpu}}
	for profile, want := range map[string]int{"1g.5gb": 7, "2g.10gb": 2, "1g.5gb+me": 1} {
		s, err := place.NewState(Machine(m, "test"))
		if err != nil {
			t.Fatal(err)
		}
		part := func(n int) place.Request {
			return place.Request{Name: fmt.Sprint("p", n), Devices: []place.DeviceRequest{{Name: "g", Fraction: place.Fraction{Profile: profile}}}}
		}
		for n := range want {
			if _, err := s.Place(t.Context(), part(n)); err != nil {
				t.Errorf("%s, number %d: %v", profile, n+1, err)
			}
		}
		if want < 7 {
			wants(t, refused(t, s, part(want)), fmt.Sprintf("there are %d of them, as many as the device can have", want))
		}
		s.Release("p0")
		if got := refused(t, s, part(want)); got != "" {
			t.Errorf("%s, after one was released: %s", profile, got)
		}
	}
}

// TestSpoiledMachines: whatever sysfs says, placement has a machine to choose
// from, and gives out no CPU that is not there.
func TestSpoiledMachines(t *testing.T) {
	for _, tree := range []*hardwaretest.Tree{hardwaretest.CoralDevBoard(), hardwaretest.Quarrel()} {
		for how, spoiled := range hardwaretest.Spoiled(tree) {
			s := stateOf(t, spoiled)
			for _, req := range []place.Request{
				{MilliCPU: 1500, Memory: gib}, {MilliCPU: 1000, Exclusive: true, WholeCore: true, Class: place.Realtime},
				{MilliCPU: 2000, Exclusive: true, OneNode: true, HugePages: []place.HugePages{{Size: 2 << 20, Bytes: 4 << 20}}},
			} {
				req.Name = "x"
				if p, err := s.Try(t.Context(), req); err == nil && len(p.CPUs) == 0 {
					t.Errorf("%s: got no CPU for %+v", how, req)
				}
			}
		}
	}
}

func TestReservedHugePages(t *testing.T) {
	tree := hardwaretest.Server8GPU() // 64 on each node, 60 of them free
	for name, n := range map[string]string{"nr_hugepages": "128", "free_hugepages": "120", "resv_hugepages": "30"} {
		tree.File("/sys/kernel/mm/hugepages/hugepages-1048576kB/"+name, n)
	}
	s := stateOf(t, tree)
	ask := place.Request{Name: "x", HugePages: []place.HugePages{{Size: gib, Bytes: 91 * gib}}}
	wants(t, refused(t, s, ask), "90 GiB are free")
	ask.HugePages[0].Bytes = 90 * gib
	if got := refused(t, s, ask); got != "" {
		t.Error(got)
	}
}

// TestForeignPartitions: a GPU that somebody has cut up is not given out whole.
func TestForeignPartitions(t *testing.T) {
	gpu := func(id string) hardware.Accelerator {
		return hardware.Accelerator{ID: id, Kind: "gpu", Vendor: "NVIDIA", Bus: "virtual", Health: hardware.Health{State: "ok"}, Node: -1,
			Partitions: []hardware.Partition{{ID: id + "-mig1", Profile: "1g.5gb", Start: 2, Slices: 1}}}
	}
	told := gpu("gpu1")
	told.Profiles = []hardware.PartitionProfile{{Name: "1g.5gb", Slices: 1, Starts: []int{1, 2}}}
	m := &hardware.Machine{Online: hardware.NewSet(0), Allowed: hardware.NewSet(0), CPUs: []hardware.CPU{{Allowed: true}}, Accelerators: []hardware.Accelerator{gpu("gpu0"), told}}
	s, err := State(m, "test")
	if err != nil {
		t.Fatal(err)
	}
	one := func(f place.Fraction) place.Request {
		return place.Request{Name: "x", Devices: []place.DeviceRequest{{Name: "g", Fraction: f}}}
	}
	wants(t, refused(t, s, one(place.Fraction{})), "0 of 1 matching devices are free")
	p, err := s.Try(t.Context(), one(place.Fraction{Profile: "1g.5gb"}))
	if err != nil || p.Devices[0].Start != 1 {
		t.Errorf("got %+v, %v; want the slice that is left", p.Devices, err)
	}
}
