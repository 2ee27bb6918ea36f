package stick

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/install"
	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/repository"
	"oscine.dev/oscine/internal/update/repository/repositorytest"
)

// disk adds a disk with an ext4 file system of a label to a machine.
func disk(t *testing.T, m install.Machine, name, label string) {
	t.Helper()
	content := make([]byte, 1<<20)
	copy(content[1024+56:], "\x53\xef")
	copy(content[1024+120:], label)
	for file, text := range map[string]string{
		"sys/class/block/" + name + "/size": "2048\n", "sys/class/block/" + name + "/device/model": "STICK\n", "dev/" + name: string(content),
	} {
		file = filepath.Join(m.Root, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFind(t *testing.T) {
	m := install.Machine{Root: t.TempDir()}
	disk(t, m, "sda", "root")
	disk(t, m, "sdb", "RELEASES")
	if c, err := find(m, "RELEASES"); err != nil || c.Device != "sdb" || c.Type != "ext2" {
		t.Errorf("got %+v, %v", c, err)
	}
	for _, label := range []string{"", "OTHER"} {
		if _, err := find(m, label); err == nil || !strings.Contains(err.Error(), "plug the stick in") {
			t.Errorf("%q: got %v", label, err)
		}
	}
	disk(t, m, "sdc", "RELEASES")
	if _, err := find(m, "RELEASES"); err == nil || !strings.Contains(err.Error(), "both sdb and sdc") {
		t.Errorf("two of one label: got %v", err)
	}
}

// TestOpen reads a release from a file system that is mounted only meanwhile.
func TestOpen(t *testing.T) {
	dir, _, root := repositorytest.New(t, repository.Options{}, "1.0.0")
	options := update.Options{Root: root, State: t.TempDir()}
	folder, err := Open(dir, options)
	if err != nil {
		t.Fatal(err)
	}
	folder.Close()
	if _, err := Open("stick:no such label", options); !errors.Is(err, update.ErrUnreachable) {
		t.Errorf("no stick: got %v", err)
	}

	if os.Getuid() != 0 {
		t.Skip("mounts a file system: needs root")
	}
	top := t.TempDir()
	if err := errors.Join(os.Rename(dir, filepath.Join(top, "releases")), os.Symlink("/", filepath.Join(top, "out"))); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "stick")
	if out, err := exec.CommandContext(t.Context(), "mke2fs", "-q", "-t", "ext4", "-e", "panic", "-d", top, "-L", "RELEASES", image, "64M").CombinedOutput(); err != nil {
		t.Skipf("needs mke2fs: %v: %s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), "losetup", "--find", "--show", "--read-only", image).CombinedOutput()
	if err != nil {
		t.Skipf("needs loop devices: %v: %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("detach %s: %v: %s", device, err, out)
		}
	})
	s, err := open(device, "ext4", "releases", options)
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	_, line, _ := strings.Cut(string(mounts), "/oscine-stick-")
	line, _, _ = strings.Cut(line, "\n")
	if err != nil || !strings.Contains(line, "errors=continue") {
		t.Errorf("a damaged stick has the kernel panic: %q, %v", line, err)
	}
	all, err := s.Releases(t.Context(), "amd64", "cloud")
	if err != nil || len(all) != 1 || all[0].Version != "1.0.0" {
		t.Errorf("got %+v, %v", all, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for folder, want := range map[string]string{"none": "no such file", "out": "escapes", "..": "escapes", "releases/metadata/timestamp.json": "it is no folder"} {
		if _, err := open(device, "ext4", folder, options); !errors.Is(err, update.ErrUnreachable) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", folder, err)
		}
	}
	if _, err := open(device, "ntfs", "", options); err == nil || !strings.Contains(err.Error(), "FAT32 and ext4") {
		t.Errorf("another file system: got %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "oscine-stick-*")); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}
