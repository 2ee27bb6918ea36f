package install

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/image/layout"
	"oscine.dev/oscine/internal/release"
)

// TestLoopDevice installs on a real block device, whose kernel has the last word on
// whether it is in use.
func TestLoopDevice(t *testing.T) {
	disk := loopDevice(t)
	if out, err := exec.CommandContext(t.Context(), "mke2fs", "-q", "-t", "ext4", "-L", "before", disk).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m, s, dir := Machine{}, source(t, "1.2.3"), t.TempDir()
	mount(t, disk, dir)
	d := find(t, m, disk)
	if len(d.Contents) != 1 || d.Contents[0].Type != "ext4" || d.Contents[0].Label != "before" {
		t.Errorf("got %+v", d.Contents)
	}
	if err := m.Install(t.Context(), d, s, Options{}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "is mounted at "+dir) {
		t.Errorf("a mounted disk: got %v", err)
	}
	unmount(t, dir)
	held, err := os.OpenFile(disk, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Install(t.Context(), find(t, m, disk), s, Options{}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "another program uses it") {
		t.Errorf("a disk in use: got %v", err)
	}
	if err := m.Install(t.Context(), d, s, Options{}); !errors.Is(err, ErrRefused) {
		t.Errorf("a disk that came into use meanwhile: got %v", err)
	}
	held.Close()

	if err := m.Install(t.Context(), find(t, m, disk), s, Options{}); err != nil {
		t.Fatal(err)
	}
	checkInstalled(t, disk, "1.2.3", "")
	if d := find(t, m, disk); len(d.Contents) == 0 {
		t.Log("this kernel reads no GPT: its view of the partitions is not checked")
	} else if len(d.Contents) != 4 || d.Contents[0].Label != "OSCINE-ESP" || d.Contents[3].Name != release.PartitionData {
		t.Errorf("the kernel sees %+v", d.Contents)
	}
	inData(t, disk, func(dir string) { write(t, filepath.Join(dir, "file"), "yes") })
	if err := m.Install(t.Context(), find(t, m, disk), source(t, "1.3.0"), Options{KeepData: true}); err != nil {
		t.Fatal(err)
	}
	checkInstalled(t, disk, "1.3.0", "")
	inData(t, disk, func(dir string) {
		if got, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(got) != "yes" {
			t.Errorf("the data: %q, %v", got, err)
		}
	})
}

// inData calls f with where the data partition of a disk is mounted.
func inData(t *testing.T, disk string, f func(dir string)) {
	t.Helper()
	l, err := layout.Plan(1<<30, 5<<20, release.EmptyDataSize)
	if err != nil {
		t.Fatal(err)
	}
	data := losetup(t, "--offset", fmt.Sprint(l.DataStart()), disk)
	dir := t.TempDir()
	mount(t, data, dir)
	f(dir)
	unmount(t, dir)
	detach(t, data)
}

func mount(t *testing.T, device, dir string) {
	t.Helper()
	if err := unix.Mount(device, dir, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) }) // it mostly is unmounted
}

func unmount(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
}

// loopDevice makes a block device of 1 GiB, or skips.
func loopDevice(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("makes a block device: needs root")
	}
	if _, err := exec.LookPath("mke2fs"); err != nil {
		t.Skip("needs mke2fs")
	}
	backing := filepath.Join(t.TempDir(), "disk")
	write(t, backing, "")
	if err := os.Truncate(backing, 1<<30); err != nil {
		t.Fatal(err)
	}
	device := losetup(t, "--partscan", backing)
	t.Cleanup(func() { detach(t, device) })
	return device
}

func losetup(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "losetup", append([]string{"--find", "--show"}, args...)...).CombinedOutput()
	if err != nil {
		t.Skipf("needs loop devices: %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func detach(t *testing.T, device string) {
	t.Helper()
	if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
		t.Errorf("detach %s: %v: %s", device, err, out)
	}
}
