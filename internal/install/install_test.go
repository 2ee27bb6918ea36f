package install

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/image"
	"oscine.dev/oscine/internal/image/layout"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/uki"
	"oscine.dev/oscine/internal/uki/ukitest"
	"oscine.dev/oscine/internal/update/repository/repositorytest"
)

// peFor is a small PE image for an architecture.
func peFor(arch string) []byte {
	stub := ukitest.Stub()
	binary.LittleEndian.PutUint16(stub[0x84:], map[string]uint16{"amd64": 0x8664, "arm64": 0xaa64}[arch])
	return stub
}

// emptyData is a data partition, compressed: real ext4 where the host can make it,
// else a mark where ext4 has its superblock.
var emptyData = sync.OnceValues(func() ([]byte, error) {
	f, err := os.CreateTemp("", "oscine-data-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := f.Truncate(release.EmptyDataSize); err != nil {
		return nil, err
	}
	if _, err := f.WriteAt([]byte{0x53, 0xef}, 1024+56); err != nil {
		return nil, err
	}
	if tool, err := exec.LookPath("mke2fs"); err == nil {
		if out, err := exec.Command(tool, "-q", "-F", "-t", "ext4", "-L", "kept", "-E", "lazy_itable_init=1,lazy_journal_init=1", f.Name()).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("mke2fs: %w: %s", err, out)
		}
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := io.Copy(z, f); err != nil {
		return nil, err
	}
	err = z.Close()
	return packed.Bytes(), err
})

// parts are a kernel image and the root it names.
func parts(t *testing.T, version, arch string, files map[string][]byte) ([]byte, *os.File) {
	t.Helper()
	root, v := repositorytest.Root(t, files)
	kernel, err := uki.Assemble(peFor(arch), []uki.Section{
		{Name: ".osrel", Data: []byte("ID=oscine\nIMAGE_ID=oscine\nIMAGE_VERSION=" + version + "\n")},
		{Name: ".cmdline", Data: []byte(v.Argument())}, {Name: ".uname", Data: []byte("7.2.12-" + arch)},
		{Name: ".initrd", Data: repositorytest.Noise(1, 1000)}, {Name: ".linux", Data: repositorytest.Noise(2, 100<<10)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return kernel, root
}

func files(t *testing.T, arch string) map[string][]byte {
	t.Helper()
	data, err := emptyData()
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		loaderOnRoot(arch): peFor(arch), strings.TrimPrefix(release.ESPOnRoot, "/") + "/loader/loader.conf": []byte("timeout 0\n"), strings.TrimPrefix(release.EmptyData, "/"): data, "usr/bin/oscined": repositorytest.Noise(3, 3<<20),
	}
}

func loaderOnRoot(arch string) string {
	return strings.TrimPrefix(release.ESPOnRoot+layout.LoaderPath(arch), "/")
}

func source(t *testing.T, version string) *Source {
	t.Helper()
	kernel, root := parts(t, version, runtime.GOARCH, files(t, runtime.GOARCH))
	s, err := Open(kernel, root)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSources(t *testing.T) {
	if s := source(t, "1.2.3"); s.Version != "1.2.3" || s.Arch != runtime.GOARCH || s.Need() != 802*layout.MiB {
		t.Errorf("got %s for %s, which needs %d", s.Version, s.Arch, s.Need())
	}
	all := files(t, "amd64")
	delete(all, loaderOnRoot("amd64"))
	if _, err := Open(parts(t, "0.0.9", "amd64", all)); !errors.Is(err, ErrSource) || !strings.Contains(err.Error(), "0.0.9 is from before oscine install") {
		t.Errorf("a root without boot loader: got %v", err)
	}
	all[loaderOnRoot("amd64")] = peFor("arm64")
	if _, err := Open(parts(t, "0.0.9", "amd64", all)); err == nil || !strings.Contains(err.Error(), `its boot loader is for "arm64"`) {
		t.Errorf("another architecture's boot loader: got %v", err)
	}
	kernel, root := parts(t, "1.0", "amd64", files(t, "amd64"))
	if _, err := root.WriteAt([]byte{1}, 100<<10); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(kernel, root); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged root: got %v", err)
	}
	if _, err := Open([]byte("MZ"), root); !errors.Is(err, ErrSource) {
		t.Errorf("no kernel image: got %v", err)
	}
}

// machineWith is a machine with one disk, vdb, that is a file of so many bytes.
func machineWith(t *testing.T, size int64) (m Machine, disk string) {
	t.Helper()
	root := t.TempDir()
	m, disk = Machine{Root: root}, filepath.Join(root, "dev/vdb")
	for name, text := range map[string]string{
		"sys/class/block/vdb/size": fmt.Sprint(size / 512), "sys/class/block/vdb/dev": "254:16", "sys/class/block/vdb/ro": "0",
		"sys/class/block/vdb/serial": "disk two", "sys/class/block/vdb/device/vendor": "0x1af4",
		"proc/self/mountinfo": "24 1 254:1 / / rw - ext4 /dev/vda1 rw\n", "dev/vdb": "",
	} {
		write(t, filepath.Join(root, name), text)
	}
	if err := os.Truncate(disk, size); err != nil {
		t.Fatal(err)
	}
	return m, disk
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func find(t *testing.T, m Machine, name string) Disk {
	t.Helper()
	d, err := m.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestInstall(t *testing.T) {
	m, disk := machineWith(t, 1<<30+512)
	d := find(t, m, "virtio-disk_two")
	if d.Path != "/dev/disk/by-id/virtio-disk_two" || d.Problem != "" || len(d.Contents) != 0 {
		t.Fatalf("got %+v", d)
	}
	s := source(t, "1.2.3")
	var last Progress
	o := Options{Machine: []byte("kind: Machine\n"), Report: func(p Progress) {
		if p.Done < last.Done || p.Done > p.Total || p.Step == "" {
			t.Errorf("after %+v: %+v", last, p)
		}
		last = p
	}}
	for range 2 { // it can be repeated
		last = Progress{}
		if err := m.Install(t.Context(), d, s, o); err != nil {
			t.Fatal(err)
		}
		if last.Done != last.Total {
			t.Errorf("at the end: %+v", last)
		}
	}
	checkInstalled(t, disk, "1.2.3", "kind: Machine\n")
	// Two disks in one machine have no identifier in common.
	first := identifiers(t, disk)
	if err := m.Install(t.Context(), d, s, Options{}); err != nil {
		t.Fatal(err)
	}
	if second := identifiers(t, disk); bytes.Equal(first, second) {
		t.Error("two installations have the same identifiers")
	}
}

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

// identifiers is the part of a partition table with the identifiers of the
// partitions.
func identifiers(t *testing.T, disk string) []byte {
	t.Helper()
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table := make([]byte, 512)
	if _, err := f.ReadAt(table, 1024); err != nil {
		t.Fatal(err)
	}
	return table
}

// checkInstalled reads a disk as others do.
func checkInstalled(t *testing.T, disk, version, machine string) {
	t.Helper()
	// What reads images takes files only.
	if info, err := os.Stat(disk); err == nil && !info.Mode().IsRegular() {
		copied := filepath.Join(t.TempDir(), "copy")
		if out, err := exec.CommandContext(t.Context(), "cp", "--sparse=always", disk, copied).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		disk = copied
	}
	i, err := image.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	u, err := i.UKI()
	if err != nil || u.Version() != version {
		t.Fatalf("got %v, %v, want version %s", u, err, version)
	}
	v, err := u.Verity()
	if err != nil {
		t.Fatal(err)
	}
	if _, slot, err := i.Root(v); err != nil || slot != release.PartitionRootA {
		t.Errorf("the root is in %q, %v", slot, err)
	}
	if got, err := i.ReadESP("/" + release.ESPMachine); machine != "" && (err != nil || string(got) != machine) {
		t.Errorf("the Machine: got %q, %v", got, err)
	}
	if got, err := i.ReadESP("/loader/loader.conf"); err != nil || string(got) != "timeout 0\n" {
		t.Errorf("the boot loader's configuration: got %q, %v", got, err)
	}
	if got, err := i.ReadESP(layout.LoaderPath(runtime.GOARCH)); err != nil || uki.Arch(got) != runtime.GOARCH {
		t.Errorf("the boot loader: got %d bytes, %v", len(got), err)
	}
	data, _ := i.Partition(release.PartitionData)
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := probe(io.NewSectionReader(f, data.Start, data.Size), data.Size); !strings.HasPrefix(got.Type, "ext") {
		t.Errorf("the data partition holds %+v", got)
	}
}

// An interrupted installation leaves a disk that nothing starts from, and that
// takes the next one.
func TestInterrupted(t *testing.T) {
	m, disk := machineWith(t, 1<<30)
	s, d := source(t, "1.2.3"), find(t, m, "vdb")
	if err := m.Install(t.Context(), d, s, Options{}); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"write the root", "read the root back", "write the kernel image", "write the boot loader"} {
		ctx, cancel := context.WithCancel(t.Context())
		err := m.Install(ctx, d, s, Options{Report: func(p Progress) {
			if p.Step == at {
				cancel()
			}
		}})
		cancel()
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "install again") {
			t.Errorf("interrupted at %q: got %v", at, err)
		}
		if _, err := image.Open(disk); !errors.Is(err, image.ErrNotImage) {
			t.Errorf("interrupted at %q, the disk opens: %v", at, err)
		}
	}
	if err := m.Install(t.Context(), d, s, Options{}); err != nil {
		t.Fatal(err)
	}
	checkInstalled(t, disk, "1.2.3", "")
}

// ended is a context that ends once something is on the disk.
type ended struct {
	context.Context
	when func() bool
}

func (e ended) Err() error {
	if e.when() {
		return context.Canceled
	}
	return nil
}

// Once the last of what firmware needs is being written, ^C comes too late, and the
// kernel of this machine counts no more.
func TestLastStep(t *testing.T) {
	m, disk := machineWith(t, 1<<30)
	s, d := source(t, "1.2.3"), find(t, m, "vdb")
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	hasTable := func() bool {
		_, err := layout.ReadTable(f, 1<<30)
		return err == nil
	}
	if err := m.Install(ended{t.Context(), hasTable}, d, s, Options{}); err != nil {
		t.Error(err)
	}
	loaders := 0
	loaderIsBack := func() bool { // the old one is there at the begin
		if has := hasLoader(t, disk); has != (loaders%2 == 0) {
			loaders++
		}
		return loaders == 2
	}
	if err := m.Install(ended{t.Context(), loaderIsBack}, d, s, Options{KeepData: true}); err != nil {
		t.Error(err)
	}
	warned, calls := "", 0
	w, err := newWriter(t.Context(), f, s, Options{Report: func(p Progress) { warned = p.Step }})
	if err != nil {
		t.Fatal(err)
	}
	w.reread = func() error {
		if calls++; calls == 1 {
			return nil
		}
		return unix.EBUSY
	}
	if err := w.install(); err != nil || !strings.Contains(warned, "warning: ") || !strings.Contains(warned, "busy") {
		t.Errorf("a kernel that keeps the old table: %v, and said %q", err, warned)
	}
	checkInstalled(t, disk, "1.2.3", "")
}

func TestKeepData(t *testing.T) {
	m, disk := machineWith(t, 1<<30)
	d := find(t, m, "vdb")
	old, next := source(t, "1.2.3"), source(t, "1.3.0")
	before := touched(t, disk)
	if err := m.Install(t.Context(), d, next, Options{KeepData: true}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "without --keep-data") {
		t.Errorf("an empty disk: got %v", err)
	}
	if touched(t, disk) != before {
		t.Error("an empty disk was changed")
	}
	if err := m.Install(t.Context(), d, old, Options{}); err != nil {
		t.Fatal(err)
	}
	mark := []byte("what people keep")
	at := leave(t, disk, mark)
	table := identifiers(t, disk)
	damage(t, disk, layout.MiB, 4<<20) // the ESP
	other := slotB(t, disk)
	damage(t, disk, other.Start, 2<<20)
	early := map[string]bool{} // steps at which firmware would start something
	o := Options{KeepData: true, Report: func(p Progress) {
		if p.Step != "take away what firmware would start" {
			early[p.Step] = early[p.Step] || hasLoader(t, disk)
		}
	}}
	if err := m.Install(t.Context(), d, next, o); err != nil {
		t.Fatal(err)
	}
	for step, is := range early {
		if is {
			t.Errorf("at the begin of %q there is a boot loader", step)
		}
	}
	if _, ok := early["write the boot loader"]; !ok {
		t.Errorf("the steps were %v", early)
	}
	checkInstalled(t, disk, "1.3.0", "")
	if got := readAt(t, disk, at, len(mark)); !bytes.Equal(got, mark) || !bytes.Equal(table, identifiers(t, disk)) {
		t.Errorf("the data holds %q", got)
	}
	if got := readAt(t, disk, other.Start, 1<<20); !bytes.Equal(got, make([]byte, layout.MiB)) {
		t.Error("the root in the other slot is whole: the node would bring its kernel image back")
	}
	if err := m.Install(t.Context(), d, next, Options{KeepData: true, Machine: []byte("x")}); !errors.Is(err, ErrRefused) {
		t.Errorf("with another Machine: got %v", err)
	}
	large := *next
	large.tree = make([]byte, 200<<20)
	if err := m.Install(t.Context(), d, &large, Options{KeepData: true}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "its slots have") {
		t.Errorf("a root that is too large: got %v", err)
	}
}

func hasLoader(t *testing.T, disk string) bool {
	t.Helper()
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fat, err := layout.OpenFAT(io.NewSectionReader(f, layout.MiB, layout.ESPSize), layout.ESPSize)
	if err != nil {
		return false // it is empty
	}
	_, err = fat.ReadFile(layout.LoaderPath(runtime.GOARCH), 8<<20)
	return err == nil
}

func slotB(t *testing.T, disk string) layout.Partition {
	t.Helper()
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	parts, err := layout.ReadTable(f, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return parts[release.PartitionRootB]
}

// leave writes a mark into the data partition, and tells where.
func leave(t *testing.T, disk string, mark []byte) int64 {
	t.Helper()
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	parts, err := layout.ReadTable(f, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	at := parts[release.PartitionData].Start + 8<<20
	if _, err := f.WriteAt(mark, at); err != nil {
		t.Fatal(err)
	}
	return at
}

func readAt(t *testing.T, disk string, at int64, n int) []byte {
	t.Helper()
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	return b
}

func damage(t *testing.T, disk string, at, length int64) {
	t.Helper()
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(repositorytest.Noise(9, int(length)), at); err != nil {
		t.Fatal(err)
	}
}

// touched tells whether a disk was written: by when, and how much of it is there.
func touched(t *testing.T, disk string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(disk, &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(st.Mtim, st.Blocks)
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
