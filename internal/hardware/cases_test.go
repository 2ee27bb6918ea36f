package hardware

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/hardware/hardwaretest"
)

const sysCPU = "/sys/devices/system/cpu"

// TestBoostRanksAreOneKind has cores of one kind whose firmware ranks them in
// small steps that add up to a quarter, and one core far above: two kinds.
func TestBoostRanksAreOneKind(t *testing.T) {
	tree := hardwaretest.Server8GPU()
	for id := range 128 {
		tree.Filef(fmt.Sprintf("%s/cpu%d/acpi_cppc/nominal_freq", sysCPU, id), "4000")
		tree.Filef(fmt.Sprintf("%s/cpu%d/cpufreq/cpuinfo_max_freq", sysCPU, id), "%d", 5352000+id%9*160000)
	}
	if m := described(t, tree); len(m.Kinds) != 1 {
		t.Errorf("%d kinds of cores, want 1: %v", len(m.Kinds), m.Kinds)
	}
	for _, id := range []int{0, 64} {
		tree.Filef(fmt.Sprintf("%s/cpu%d/cpufreq/cpuinfo_max_freq", sysCPU, id), "9900000")
	}
	if m := described(t, tree); len(m.Kinds) != 2 || m.Kinds[1].CPUs.String() != "0,64" {
		t.Errorf("kinds %v, want the fast core alone", m.Kinds)
	}
}

// TestMIDRWithoutArchitecture reads an arm64 machine whose kernel has no
// /proc/sys/kernel/arch, as those before Linux 6.1.
func TestMIDRWithoutArchitecture(t *testing.T) {
	tree := hardwaretest.CoralDevBoard()
	tree.Remove("/proc/sys/kernel/arch")
	for id, midr := range []string{"0x411fd461", "0x411fd4d0", "0x412fd470", "0x411fd4e0"} {
		tree.File(fmt.Sprintf("%s/cpu%d/regs/identification/midr_el1", sysCPU, id), "0x00000000"+strings.TrimPrefix(midr, "0x"))
		tree.Filef(fmt.Sprintf("%s/cpu%d/cpu_capacity", sysCPU, id), "%d", []int{280, 855, 855, 1024}[id])
	}
	var got []string
	for _, k := range described(t, tree).Kinds {
		got = append(got, k.CoreType)
	}
	if want := "Cortex-A510 Cortex-A715 Cortex-A710 Cortex-X3"; strings.Join(got, " ") != want {
		t.Errorf("kinds %v, want %s", got, want)
	}
}

func TestOnlineListThatIsNotTrue(t *testing.T) {
	for _, c := range []struct{ name, online, cgroup, status, want, allowed string }{
		{"renumbered by LXCFS", "0", "24", "24", "0-127", "24"},
		{"renumbered, one number is right by chance", "0-1", "0,24", "0,24", "0-127", "0,24"},
		{"affinity alone", "0", "", "24", "0-127", "24"},
		{"affinity names CPUs that are off", "0-63", "", "0-127", "0-63", "0-63"},
		{"empty", "", "", "", "0-127", "0-127"},
		{"affinity narrower than the cpuset", "0-127", "0-7", "4-11", "0-127", "4-7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree := hardwaretest.Server8GPU()
			tree.File(sysCPU+"/online", c.online)
			if c.cgroup != "" {
				tree.File("/sys/fs/cgroup/cpuset.cpus.effective", c.cgroup)
				tree.File("/proc/self/cpuset", "/")
			}
			if c.status != "" {
				tree.File("/proc/self/status", "Name:\tcat\nCpus_allowed_list:\t"+c.status+"\nMems_allowed_list:\t0-1")
			}
			m := described(t, tree)
			if m.Online.String() != c.want || m.Allowed.String() != c.allowed {
				t.Errorf("online %s, allowed %s; want %s and %s", m.Online, m.Allowed, c.want, c.allowed)
			}
		})
	}
}

// TestCgroupWithoutController is bound by the cgroup above it, and by the
// mount itself where the name is one from outside of a namespace.
func TestCgroupWithoutController(t *testing.T) {
	for _, name := range []string{"/pod/container", "/../../elsewhere", "/kubepods/besteffort/x"} {
		tree := hardwaretest.Server8GPU()
		tree.File("/sys/fs/cgroup/cpuset.cpus.effective", "0-3")
		tree.File("/sys/fs/cgroup/pod/cgroup.procs", "1")
		tree.File("/proc/self/cpuset", name)
		if m := described(t, tree); m.Allowed.String() != "0-3" {
			t.Errorf("cgroup %s: allowed %s, want 0-3", name, m.Allowed)
		}
	}
}

// TestComputePartitions divides one GPU in four and leaves another whole.
func TestComputePartitions(t *testing.T) {
	tree := hardwaretest.Server8MI300X()
	const kfd = "/sys/class/kfd/kfd/topology/nodes/"
	for part := range 4 {
		node := fmt.Sprintf("%s%d", kfd, []int{2, 20, 21, 22}[part])
		tree.Filef(node+"/properties", "simd_count 80\nlocation_id %d\ndomain 0\ngfx_target_version 90402\ndrm_render_minor %d", 0x13<<8|part, 128+40*min(part, 1)+part)
		tree.Filef(node+"/mem_banks/0/properties", "heap_type 1\nsize_in_bytes %d", 48<<30)
	}
	tree.File(kfd+"20/io_links/0/properties", "type 11\nnode_from 20\nnode_to 21\nmax_bandwidth 819200")
	m := described(t, tree)
	if len(m.Accelerators) != 11 {
		t.Fatalf("%d accelerators, want 7 whole GPUs and 4 parts", len(m.Accelerators))
	}
	var got []string
	for _, a := range m.Accelerators[:5] {
		got = append(got, fmt.Sprintf("%s %s %s %s %v", a.ID, a.Address, a.Memory, a.Architecture, a.Attributes[AttributePCIBusID]))
	}
	want := []string{
		"gpu0 0000:13:00.0 48 GiB gfx942 0000:13:00.0", "gpu1 0000:13:00.0#1 48 GiB gfx942 0000:13:00.0",
		"gpu2 0000:13:00.0#2 48 GiB gfx942 0000:13:00.0", "gpu3 0000:13:00.0#3 48 GiB gfx942 0000:13:00.0", "gpu4 0000:14:00.0 192 GiB gfx942 0000:14:00.0",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if nodes := strings.Join(m.Accelerators[1].DeviceNodes, " "); nodes != "/dev/dri/renderD169 /dev/kfd" {
		t.Errorf("device nodes of a part: %s", nodes)
	}
	linked := false
	for _, l := range m.Links {
		linked = linked || l.A == "gpu1" && l.B == "gpu2"
	}
	if !linked {
		t.Errorf("links %v, want one between the parts", m.Links)
	}
	if p, err := m.Between("gpu0", "gpu1"); err != nil || p.Proximity > Switch {
		t.Errorf("way between two parts of one function: %v, %v", p, err)
	}
}

// TestDeviceNodesOfAnyClass finds those of a driver that nobody listed.
func TestDeviceNodesOfAnyClass(t *testing.T) {
	tree := hardwaretest.CoralDevBoard()
	const dir = "/sys/devices/platform/bus@0/17000000.gpu"
	tree.Link("/sys/bus/platform/devices/17000000.gpu", dir)
	tree.File(dir+"/of_node/compatible", "nvidia,ga10b")
	tree.Link(dir+"/driver", "/sys/bus/platform/drivers/gk20a")
	tree.File("/sys/bus/platform/drivers/gk20a/bind", "")
	tree.File(dir+"/nvidia-gpu-v2/ctrl/uevent", "MAJOR=505\nMINOR=1\nDEVNAME=nvgpu/igpu0/ctrl")
	a := described(t, tree).Accelerator("17000000.gpu")
	if a == nil {
		t.Fatal("the GPU is not found")
	}
	if a.Health.State != "ok" || strings.Join(a.DeviceNodes, " ") != "/dev/nvgpu/igpu0/ctrl" {
		t.Errorf("health %v, missing %v, device nodes %v", a.Health, a.Missing, a.DeviceNodes)
	}
}

func TestLoadedModuleIsNotAskedFor(t *testing.T) {
	tree := hardwaretest.Server8GPU()
	tree.Remove("/sys/devices/pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:00.0/0000:13:00.0/driver")
	tree.File("/sys/module/nvidia/version", "550.54")
	a := described(t, tree).Accelerator("0000:13:00.0")
	if a == nil || len(a.Missing) != 1 || !strings.Contains(a.Missing[0], "is loaded and has not taken the device") {
		t.Errorf("missing %v", a)
	}
}

// TestOffTheBus is lost from the first look on, not only when it is watched.
func TestOffTheBus(t *testing.T) {
	tree := hardwaretest.Server8GPU()
	tree.File("/sys/devices/pci0000:10/0000:10:01.0/0000:11:00.0/0000:12:00.0/0000:13:00.0/config", strings.Repeat("\xff", 64))
	m := described(t, tree)
	if a := m.Accelerator("0000:13:00.0"); a.Health.State != "lost" || a.Usable() {
		t.Errorf("health %v, usable %v", a.Health, a.Usable())
	}
	if a := m.Accelerator("0000:14:00.0"); a.Health.State != "ok" {
		t.Errorf("the next one: health %v", a.Health)
	}
}

func TestNodesAcrossPackages(t *testing.T) {
	tree := hardwaretest.Server8GPU()
	tree.File("/sys/devices/system/node/node0/cpumap", "ffff")
	tree.File("/sys/devices/system/node/node1/cpumap", "ffffffff,ffffffff,ffffffff,ffff0000")
	for _, g := range described(t, tree).Gaps {
		if strings.Contains(g.Reason, "cut across") {
			return
		}
	}
	t.Error("no gap says that nodes and packages cut across each other")
}

// TestNamesArePrintable holds for every text of the map, wherever it is from.
func TestNamesArePrintable(t *testing.T) {
	tree := hardwaretest.Server8GPU()
	tree.File("/sys/class/dmi/id/product_name", "X\x1b[31mRED\x07\xff")
	tree.File("/proc/cpuinfo", "processor\t: 0\nvendor_id\t: Genuine\x1b]0;Intel\nmodel name\t: Xeon\x00\x9b")
	m := described(t, tree)
	data, err := Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), `\u001b`) || strings.Contains(string(data), `\u0007`) || strings.ContainsRune(string(data), 0xfffd) {
		t.Error("the document holds control bytes")
	}
	if want := `X\x1b[31mRED\a\xff`; m.System.Product != want {
		t.Errorf("product %q, want %q", m.System.Product, want)
	}
	again, err := Decode([]byte(strings.ReplaceAll(string(data), "NVIDIA", "NV\\u001bIDIA")))
	if err != nil {
		t.Fatal(err)
	}
	if v := again.Accelerators[0].Vendor; strings.ContainsRune(v, 0x1b) {
		t.Errorf("a map from a peer: vendor %q", v)
	}
}

// TestListsAreNeverNull reads what a partial map holds.
func TestListsAreNeverNull(t *testing.T) {
	bare := hardwaretest.NewTree()
	bare.File("/proc/cpuinfo", "")
	for name, m := range map[string]*Machine{"no files": described(t, bare), "only addresses": topologyMachine(t)} {
		data, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), ":null") {
			t.Errorf("%s: %s", name, data)
		}
	}
}

func topologyMachine(t *testing.T) *Machine {
	t.Helper()
	topology, err := ReadTopology(strings.NewReader(`<system version="1"><cpu numaid="0"><pci busid="0000:00:16.0"/><pci busid="0000:00:17.0"/></cpu></system>`))
	if err != nil {
		t.Fatal(err)
	}
	m, err := topology.Machine()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestFunctionsWithoutClass(t *testing.T) {
	var reasons []string
	for _, g := range topologyMachine(t).Gaps {
		reasons = append(reasons, g.Reason)
	}
	text := strings.Join(reasons, "\n")
	for _, want := range []string{"2 functions have an address and no class", "no affinity"} {
		if !strings.Contains(text, want) {
			t.Errorf("gaps %q, want %q", text, want)
		}
	}
}
