package container

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// smallDisk mounts an ext4 of 64 MiB with 4096 inodes.
func smallDisk(t *testing.T) (dir string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("skipped: mounting a file system needs root")
	}
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Skipf("skipped: no mkfs.ext4 (e2fsprogs): %v", err)
	}
	image := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 64<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), mkfs, "-q", "-N", "4096", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	dir = t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("skipped: no loop device can be mounted: %v %s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// free is what is left of a disk.
func free(t *testing.T, dir string) (bytes, inodes int64) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Ffree)
}

// An image for which there is no room, in bytes or in files, is refused before
// the disk is full, whatever it claims to hold; and what came of it is freed.
func TestImagesAskForRoom(t *testing.T) {
	config := testConfig(t)
	dir := smallDisk(t)
	const keptBytes, keptInodes = 16 << 20, 1024
	config.Root = filepath.Join(dir, "containerd")
	config.Room = func() error {
		if bytes, inodes := free(t, dir); bytes < keptBytes || inodes < keptInodes {
			return fmt.Errorf("%w: remove something", errdefs.ErrResourceExhausted)
		}
		return nil
	}
	r := openRuntime(t, config)
	bytesBefore, inodesBefore := free(t, dir)

	var many []file
	for i := range 6000 {
		many = append(many, file{name: fmt.Sprint("f", i)})
	}
	large := testImage{name: "example.test/large:1", layers: [][]byte{layer(t, file{name: "zeros", content: strings.Repeat("\x00", 128<<20)})}}
	files := testImage{name: "example.test/files:1", layers: [][]byte{layer(t, many...)}}
	folders := make([]file, 6000)
	for i := range folders {
		folders[i] = file{name: fmt.Sprint("d", i, "/"), kind: tar.TypeDir, mode: 0o755}
	}
	unpacked := testImage{name: "example.test/folders:1", layers: [][]byte{layer(t, folders...)}}
	for _, image := range []testImage{large, files, unpacked} {
		host, _ := registryOf(t, image)
		for how, store := range map[string]func() error{
			"imported": func() error { _, err := r.Import(t.Context(), bytes.NewReader(archiveOf(t, image))); return err },
			"pulled":   func() error { _, err := r.Pull(t.Context(), host+"/x:1", nil, nil); return err },
		} {
			err := store()
			if !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), "remove something") {
				t.Errorf("%s %s: %v, want that there is no room, and what to remove", image.name, how, err)
			}
			if b, i := free(t, dir); b < bytesBefore-1<<20 || i < inodesBefore-64 {
				t.Errorf("%s %s: %d of %d bytes and %d of %d inodes are free afterwards", image.name, how, b, bytesBefore, i, inodesBefore)
			}
		}
	}
	good := probeImage(t)
	if _, err := r.Import(t.Context(), bytes.NewReader(archiveOf(t, good))); err != nil {
		t.Errorf("an image for which there is room: %v", err)
	}
}
