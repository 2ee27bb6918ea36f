package install

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
)

// Two disks may have the same lasting name, as namespaces of one NVMe drive may.
func TestSharedNames(t *testing.T) {
	m, _ := machineWith(t, 1<<30)
	for name, nsid := range map[string]string{"nvme0n1": "1", "nvme0n2": "2", "nvme0c0n1": "1", "nvme1n1": "1"} {
		for file, text := range map[string]string{"size": "2097152", "nsid": nsid, "device/serial": "S1", "device/model": "M"} {
			write(t, m.block(name)+"/"+file, text)
		}
	}
	write(t, m.block("nvme0c0n1")+"/hidden", "1\n")
	disks, err := m.Disks()
	if err != nil || len(disks) != 4 {
		t.Errorf("got %+v, %v, want 4 disks", disks, err)
	}
	if d, err := m.Find("nvme-M_S1"); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "both /dev/nvme0n1 and /dev/nvme1n1") {
		t.Errorf("a name of two disks: got %+v, %v", d, err)
	}
	if d := find(t, m, "nvme-M_S1_2"); d.Name != "nvme0n2" {
		t.Errorf("the second namespace: got %+v", d)
	}
	if d := find(t, m, "/dev/nvme1n1"); d.Name != "nvme1n1" {
		t.Errorf("by the kernel's name: got %+v", d)
	}
}

// A disk that is not the one that was shown is refused.
func TestAnotherDisk(t *testing.T) {
	m, disk := machineWith(t, 1<<30)
	s, d, before := source(t, "1.2.3"), find(t, m, "vdb"), touched(t, disk)
	for _, o := range []Options{{Path: "/dev/disk/by-id/virtio-other", Size: d.Size}, {Path: d.Path, Size: d.Size - 512}} {
		if err := m.Install(t.Context(), d, s, o); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "that was shown") {
			t.Errorf("%+v: got %v", o, err)
		}
	}
	if touched(t, disk) != before {
		t.Error("the disk was changed")
	}
	if err := m.Check(d, s, Options{Path: d.Path, Size: d.Size}); err != nil {
		t.Error(err)
	}
}

func TestRefusedDisks(t *testing.T) {
	s := source(t, "1.2.3")
	for _, c := range []struct {
		name    string
		size    int64
		prepare func(m *Machine, disk string)
		options Options
		want    string
	}{
		{"too small", 700 << 20, nil, Options{}, "at least 802 MiB are needed"},
		{"runs from it", 1 << 30, func(m *Machine, _ string) { m.System = "vdb" }, Options{}, "this machine runs from it"},
		{"mounted", 1 << 30, func(m *Machine, _ string) {
			write(t, m.at("proc/self/mountinfo"), "24 1 254:16 / /mnt rw - ext4 /dev/vdb rw\n")
		}, Options{}, "vdb is mounted at /mnt"},
		{"mounted btrfs", 1 << 30, func(m *Machine, _ string) {
			write(t, m.at("proc/self/mountinfo"), "24 1 0:55 / /mnt rw - btrfs /dev/vdb rw\n")
		}, Options{}, "vdb is mounted at /mnt"},
		{"a mounted partition", 1 << 30, func(m *Machine, _ string) {
			write(t, m.block("vdb")+"/vdb1/partition", "1")
			write(t, m.block("vdb1")+"/dev", "254:17")
			write(t, m.at("proc/self/mountinfo"), "24 1 254:17 / /srv rw - ext4 /dev/vdb1 rw\n")
		}, Options{}, "vdb1 is mounted at /srv"},
		{"swap", 1 << 30, func(m *Machine, _ string) {
			write(t, m.at("proc/swaps"), "Filename Type Size Used Priority\n/dev/vdb partition 1 0 -2\n")
		}, Options{}, "used as swap"},
		{"held", 1 << 30, func(m *Machine, _ string) { write(t, m.block("vdb")+"/holders/dm-0/x", "") }, Options{}, "in use by dm-0"},
		{"read-only", 1 << 30, func(m *Machine, _ string) { write(t, m.block("vdb")+"/ro", "1\n") }, Options{}, "read-only"},
		{"LVM", 1 << 30, func(_ *Machine, disk string) { put(t, disk, 512, "LABELONE................LVM2 001") }, Options{}, "vdb LVM2_member"},
		{"RAID", 1 << 30, func(_ *Machine, disk string) { put(t, disk, 1<<30-64<<10, "\xfc\x4e\x2b\xa9") }, Options{}, "vdb linux_raid_member"},
		{"RAID 1.2", 1 << 30, func(_ *Machine, disk string) { put(t, disk, 4096, "\xfc\x4e\x2b\xa9") }, Options{}, "vdb linux_raid_member"},
		{"ZFS", 1 << 30, func(_ *Machine, disk string) { put(t, disk, 129<<10, "\x0c\xb1\xba\x00\x00\x00\x00\x00") }, Options{}, "vdb zfs_member"},
	} {
		m, disk := machineWith(t, c.size)
		if c.prepare != nil {
			c.prepare(&m, disk)
		}
		before := touched(t, disk)
		err := m.Install(t.Context(), find(t, m, "vdb"), s, c.options)
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		if touched(t, disk) != before {
			t.Errorf("%s: the disk was changed", c.name)
		}
	}
	// What cannot be read may be anything.
	u, unreadable := machineWith(t, 1<<30)
	if err := os.Truncate(unreadable, 1<<20); err != nil { // reads beyond fail
		t.Fatal(err)
	}
	bad := find(t, u, "vdb")
	if err := u.Check(bad, s, Options{}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "could not be read (vdb: ") {
		t.Errorf("unreadable: got %v", err)
	}
	if msg := bad.Message(); !msg.Member || len(msg.Contents) != 1 || msg.Contents[0].Type != "unreadable" || msg.Contents[0].Label == "" {
		t.Errorf("unreadable: shown as %v", msg)
	}
	if err := u.Check(bad, s, Options{Force: true}); err != nil {
		t.Errorf("unreadable, with force: %v", err)
	}
	// A group that nobody uses gives way to force.
	m, disk := machineWith(t, 1<<30)
	put(t, disk, 512, "LABELONE................LVM2 001")
	if err := m.Install(t.Context(), find(t, m, "vdb"), s, Options{Force: true}); err != nil {
		t.Error(err)
	}
	foreign := *s
	foreign.Arch = map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	if err := m.Install(t.Context(), find(t, m, "vdb"), &foreign, Options{}); !errors.Is(err, ErrSource) || !strings.Contains(err.Error(), "this machine is "+runtime.GOARCH) {
		t.Errorf("another architecture: got %v", err)
	}
	for _, name := range []string{"vdc", "/dev/vdc", "/etc/passwd", ""} {
		if d, err := m.Find(name); err == nil {
			t.Errorf("%q is the disk %+v", name, d)
		}
	}
}

func put(t *testing.T, disk string, at int64, text string) {
	t.Helper()
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(text), at); err != nil {
		t.Fatal(err)
	}
}
