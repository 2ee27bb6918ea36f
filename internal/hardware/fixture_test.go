package hardware

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"testing"

	"oscine.dev/oscine/internal/hardware/hardwaretest"
)

// discoverTree writes a described machine and reads it back.
func discoverTree(t *testing.T, tree *hardwaretest.Tree) *Machine {
	t.Helper()
	dir := t.TempDir()
	if err := tree.Write(dir); err != nil {
		t.Fatal(err)
	}
	m, err := Discover(dir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestCpusets reads what each kind of cpuset allows, wherever it is mounted.
func TestCpusets(t *testing.T) {
	for _, test := range []struct {
		name, mounts, group string
		files               map[string]string
		want                string
	}{
		{"cgroup2 elsewhere", "cgroup2 /cg cgroup2 rw,nsdelegate 0 0", "0::/work",
			map[string]string{"/cg/cgroup.controllers": "cpu cpuset", "/cg/work/cpuset.cpus.effective": "1-2"}, "1-2"},
		{"cgroup2 without cpusets", "cgroup2 /cg cgroup2 rw 0 0", "0::/work",
			map[string]string{"/cg/cgroup.controllers": "cpu", "/cg/work/cpuset.cpus.effective": "1-2"}, "0-3"},
		{"cgroup2 in its place", "", "0::/work",
			map[string]string{"/sys/fs/cgroup/cpuset.cpus.effective": "0-3", "/sys/fs/cgroup/work/cpuset.cpus.effective": "3"}, "3"},
		{"version 1", "cgroup /cg/cpuset cgroup rw,cpuset 0 0", "7:memory:/x\n4:cpuset:/work",
			map[string]string{"/cg/cpuset/work/cpuset.cpus": "0,2"}, "0,2"},
		{"version 1 without prefix", "none /cg cgroup rw,cpuset,noprefix 0 0", "4:cpuset:/work",
			map[string]string{"/cg/work/cpus": "2"}, "2"},
		{"version 1 in its place", "", "4:cpuset:/work",
			map[string]string{"/sys/fs/cgroup/cpuset/cpuset.cpus": "0-3", "/sys/fs/cgroup/cpuset/work/cpuset.cpus": "0-1"}, "0-1"},
		{"bare cpuset", "none /dev/sets cpuset rw 0 0", "4:cpuset:/work",
			map[string]string{"/dev/sets/work/cpus": "1"}, "1"},
		{"bare cpuset in its place", "", "4:cpuset:/work",
			map[string]string{"/dev/cpuset/cpus": "0-3", "/dev/cpuset/work/cpus": "0"}, "0"},
		{"an empty set restricts nothing", "", "4:cpuset:/work",
			map[string]string{"/dev/cpuset/cpus": "0-3", "/dev/cpuset/work/cpus": ""}, "0-3"},
		{"lines cut short", "cgroup2\nnone /x tmpfs rw 0 0", "0::/work", nil, "0-3"},
	} {
		tree := hardwaretest.CoralDevBoard()
		tree.File("/proc/mounts", test.mounts)
		tree.File("/proc/self/cgroup", test.group)
		for name, content := range test.files {
			tree.File(name, content)
		}
		m := discoverTree(t, tree)
		if got := m.Allowed.String(); got != test.want {
			t.Errorf("%s: CPUs %s are allowed, want %s", test.name, got, test.want)
		}
		for _, c := range m.CPUs {
			if c.Allowed != m.Allowed.Has(c.ID) {
				t.Errorf("%s: CPU %d says allowed %t", test.name, c.ID, c.Allowed)
			}
		}
	}
}

// TestArmKinds tells the cores of a big.LITTLE chip apart by their
// identification, and sees one kind where all are the same.
func TestArmKinds(t *testing.T) {
	const little, big = 0x410fd034, 0x410fd082 // Cortex-A53, Cortex-A72
	board := func(midr ...int) *Machine {
		tree := hardwaretest.CoralDevBoard()
		for id, value := range midr {
			dir := fmt.Sprintf("/sys/devices/system/cpu/cpu%d/", id)
			tree.Filef(dir+"regs/identification/midr_el1", "0x%016x", value)
			tree.Filef(dir+"cpu_capacity", "%d", map[int]int{little: 400, big: 1024}[value])
		}
		return discoverTree(t, tree)
	}
	m := board(little, little, little, big)
	var got []string
	for _, k := range m.Kinds {
		got = append(got, k.CoreType+" "+k.CPUs.String())
	}
	if want := []string{"Cortex-A53 0-2", "Cortex-A72 3"}; !slices.Equal(got, want) {
		t.Errorf("kinds %q, want %q", got, want)
	}
	if m.CPUs[3].Kind != 1 || m.CPUs[0].Kind != 0 {
		t.Errorf("CPU 3 is of kind %d and CPU 0 of %d, want 1 and 0", m.CPUs[3].Kind, m.CPUs[0].Kind)
	}
	if m := board(little, little, little, little); len(m.Kinds) > 1 {
		t.Errorf("one kind of core was told apart: %+v", m.Kinds)
	}
}

// space is a PCI configuration space.
func space(bytes map[int]byte) string {
	b := make([]byte, 4096)
	for at, value := range bytes {
		b[at] = value
	}
	return string(b)
}

// TestConfigSpace takes from configuration space what old kernels have no
// attribute for: the link, and whether a bridge's access control is on.
func TestConfigSpace(t *testing.T) {
	tree := hardwaretest.CoralDevBoard() // has a bridge and a device behind it
	tree.File("/proc/sys/kernel/osrelease", "4.9.0")
	express := map[int]byte{
		pciStatus: 0x10, pciCapabilities: 0x40, 0x40: 0x01, 0x41: 0x60, // power management, then
		0x60: pciExpress, 0x60 + pciLinkCap: 0x04, 0x60 + pciLinkCap + 1: 0x01, // 16 GT/s, 16 lanes
		0x60 + pciLinkStatus: 0x83,                                               // 8 GT/s, 8 lanes
		pciExtended:          0x01, pciExtended + 2: 0x01, pciExtended + 3: 0x20, // error reporting, then at 0x200
		0x200: pciACS, 0x200 + pciACSControl: 0x1d,
	}
	for name := range maps.Clone(tree.Files) {
		if path.Base(name) == "current_link_speed" {
			dir := path.Dir(name)
			for _, attribute := range []string{"current_link_speed", "current_link_width", "max_link_speed", "max_link_width"} {
				delete(tree.Files, path.Join(dir, attribute))
			}
			tree.Files[path.Join(dir, "config")] = space(express)
		}
	}
	links, controlled := 0, 0
	for _, d := range discoverTree(t, tree).PCI {
		if d.Link != nil {
			links++
			if d.Link.GTs != 8 || d.Link.Width != 8 || d.Best == nil || d.Best.GTs != 16 || d.Best.Width != 16 {
				t.Errorf("%s: link %+v of %+v, want 8 GT/s × 8 of 16 GT/s × 16", d.Address, d.Link, d.Best)
			}
		}
		if d.Bridge && d.ACS {
			controlled++
		}
	}
	if links == 0 || controlled == 0 {
		t.Errorf("%d links and %d bridges with access control were read, want some", links, controlled)
	}
	// Capabilities that lead nowhere, in circles, or past the end.
	for name, bytes := range map[string]string{
		"none":        space(nil),
		"a circle":    space(map[int]byte{pciStatus: 0x10, pciCapabilities: 0x40, 0x40: 0x01, 0x41: 0x40, pciExtended: 0x01, pciExtended + 3: 0x10}),
		"cut short":   space(map[int]byte{pciStatus: 0x10, pciCapabilities: 0x40, 0x40: pciExpress})[:0x44],
		"first bytes": space(express)[:64],
		"an odd link": space(map[int]byte{pciStatus: 0x10, pciCapabilities: 0x40, 0x40: pciExpress, 0x40 + pciLinkCap: 0x0f, 0x40 + pciLinkStatus: 0x00}),
	} {
		at := func(offset, n int) []byte {
			if offset+n > len(bytes) {
				return nil
			}
			return []byte(bytes[offset : offset+n])
		}
		if now, best := configLinks(at); now != nil || best != nil {
			t.Errorf("%s: link %+v of %+v, want none", name, now, best)
		}
		if configACS(at) {
			t.Errorf("%s: access control is on", name)
		}
	}
}
