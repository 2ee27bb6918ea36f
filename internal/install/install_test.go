package install

import (
	"bytes"
	"compress/gzip"
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
	if s := source(t, "1.2.3"); s.Version != "1.2.3" || s.Arch != runtime.GOARCH {
		t.Errorf("got %s for %s", s.Version, s.Arch)
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

// touched tells whether a disk was written: by when, and how much of it is there.
func touched(t *testing.T, disk string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(disk, &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(st.Mtim, st.Blocks)
}
