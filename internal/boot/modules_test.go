package boot

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMatchAlias(t *testing.T) {
	tests := []struct {
		pattern, s string
		want       bool
	}{
		{"virtio:d00000002v*", "virtio:d00000002v00001AF4", true},
		{"virtio:d00000002v*", "virtio:d00000001v00001AF4", false},
		{"pci:v00008086d000025ABsv*sd*bc*sc*i*", "pci:v00008086d000025ABsv00001AF4sd00001100bc08sc80i00", true},
		{"acpi*:QEMU0002:*", "acpi:QEMU0002:", true},
		{"scsi:t-0x00*", "scsi:t-0x00", true},
		{"usb:v*p*d*dc*dsc*dp*ic08isc0[3-6]ip50in*", "usb:v0781p5567d0126dc00dsc00dp00ic08isc06ip50in00", true},
		{"usb:v*p*d*dc*dsc*dp*ic08isc0[3-6]ip50in*", "usb:v0781p5567d0126dc00dsc00dp00ic08isc02ip50in00", false},
		{"a?c", "abc", true}, {"a?c", "ac", false}, {"", "", true}, {"", "x", false}, {"*", "", true}, {"**b", "ab", true},
		{"a[", "a[", true}, {"[a-", "b", false}, {"fs-overlay", "fs-overlay", true}, {"x*y*z", "xaybz", true}, {"x*y*z", "xayb", false},
	}
	for _, test := range tests {
		if got := match(test.pattern, test.s); got != test.want {
			t.Errorf("match(%q, %q): got %t", test.pattern, test.s, got)
		}
	}
}

func FuzzMatchAlias(f *testing.F) {
	f.Add("virtio:d*v[0-9]*", "virtio:d1v2")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		match(pattern, s) // must end, and within bounds
		if !match("*", s) {
			t.Errorf("a star does not match %q", s)
		}
	})
}

func newModules() *modules {
	return &modules{depends: map[string][]string{}, seen: map[string]bool{}, loaded: map[string]bool{}}
}

func TestModuleLists(t *testing.T) {
	m := newModules()
	m.parseDep([]byte("kernel/drivers/md/dm-verity.ko: kernel/drivers/md/dm-bufio.ko kernel/drivers/md/dm-mod.ko\nkernel/a.ko:\nrubbish\n"))
	m.parseAlias([]byte("# comment\nalias fs-erofs erofs\nalias broken\nalias virtio:d2v* virtio-blk\n"))
	want := []string{"kernel/drivers/md/dm-verity.ko", "kernel/drivers/md/dm-bufio.ko", "kernel/drivers/md/dm-mod.ko"}
	if diff := cmp.Diff(want, m.depends["dm_verity"]); diff != "" {
		t.Errorf("dm_verity (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]alias{{"fs-erofs", "erofs"}, {"virtio:d2v*", "virtio_blk"}}, m.aliases, cmp.AllowUnexported(alias{})); diff != "" {
		t.Errorf("aliases (-want +got):\n%s", diff)
	}
	m.parseLoaded([]byte("virtio_blk 40960 6 - Live 0x0\n\ndm_mod 1 1 - Live 0x0\n"))
	if err := m.load("virtio:d2v1", ""); !errors.Is(err, errNoModule) { // it has no line in modules.dep
		t.Errorf("got %v", err)
	}
	m.depends["virtio_blk"] = []string{"kernel/virtio_blk.ko"}
	if err := m.load("virtio:d2v1", ""); err != nil {
		t.Errorf("a module that is loaded was loaded again: %v", err)
	}
	for _, name := range []string{"fs-nothing", "virtio:d9v1"} {
		if err := m.load(name, ""); !errors.Is(err, errNoModule) {
			t.Errorf("load %s: got %v, want errNoModule", name, err)
		}
	}
}

func TestIdentities(t *testing.T) {
	sys := t.TempDir()
	device := func(path, modalias string) {
		dir := filepath.Join(sys, path)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "modalias"), []byte(modalias+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	device("bus/virtio/devices/virtio0", "virtio:d2")
	device("bus/virtio/devices/virtio1", "virtio:d2")
	device("bus/pci/devices/0", "")
	m := newModules()
	if diff := cmp.Diff([]string{"virtio:d2"}, m.identities(sys)); diff != "" {
		t.Errorf("first (-want +got):\n%s", diff)
	}
	device("class/input/input3", "input:b19")
	if diff := cmp.Diff([]string{"input:b19"}, m.identities(sys)); diff != "" {
		t.Errorf("only the new one (-want +got):\n%s", diff)
	}
}

func TestModprobeArgs(t *testing.T) {
	for line, want := range map[string][2]string{
		"-q -- net-pf-10":        {"net-pf-10", ""},
		"-q -- nbd max_part=2 x": {"nbd", "max_part=2 x"},
		"-q -- -rf":              {"-rf", ""},
		"vfat":                   {"vfat", ""},
	} {
		if name, parameters := modprobeArgs(strings.Fields(line)); name != want[0] || parameters != want[1] {
			t.Errorf("%s: got %q, %q", line, name, parameters)
		}
	}
}

func TestLateModulesArePutOff(t *testing.T) {
	m := newModules()
	m.parseDep([]byte("kernel/late.ko:\nkernel/now.ko:\n"))
	m.parseAlias([]byte("alias acpi:BUTTON late\nalias acpi:BUTTON gone\n"))
	m.later = map[string]bool{"late": true}
	if err := m.load("acpi:BUTTON", ""); !errors.Is(err, errNoModule) { // gone has no file
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff([]string{"late"}, m.put); diff != "" {
		t.Errorf("put off (-want +got):\n%s", diff)
	}
	m.parseLoaded([]byte("late 1 0 - Live 0x0\n")) // so that nothing is loaded here
	m.loadLate(&Log{}, t.TempDir())
	if len(m.put) > 0 || m.later["late"] {
		t.Errorf("left over: %v", m.put)
	}
}
