package systemtest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"

	"oscine.dev/oscine/internal/image"
	"oscine.dev/oscine/internal/image/layout"
	"oscine.dev/oscine/internal/machine"
	"oscine.dev/oscine/internal/machine/machinetest"
)

// otherDisk is a second disk of a machine, with what another system left on it.
func otherDisk(t *testing.T) (file string, args []string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "other.img")
	if err := os.WriteFile(file, []byte("XFSB"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 2<<30); err != nil {
		t.Fatal(err)
	}
	return file, []string{"-drive", "if=none,id=other,format=raw,file=" + file, "-device", "virtio-blk-pci,drive=other,serial=OTHER"}
}

// TestInstall boots an image, installs it from there on a second disk, and starts
// the machine from that disk, where it is the same node.
func TestInstall(t *testing.T) {
	machinetest.Need(t)
	dir := t.TempDir()
	n := newTestNode(t, dir, loopback(machinetest.APIPort))
	config, err := os.ReadFile(n.machineFile())
	if err != nil {
		t.Fatal(err)
	}
	p := newPublisher(t, dir)
	config = fmt.Appendf(config, "    update:\n        root: '%s'\n", strings.ReplaceAll(p.root(), "\n", " "))
	p.publishImage(machinetest.Image(t, ""))
	other, args := otherDisk(t)
	ports := []machine.Port{{Guest: machinetest.APIPort}}
	m := machinetest.Start(t, machine.Options{Name: "stick", Image: machinetest.Image(t, ""), Config: config, Ports: ports, ExtraArgs: args})
	n = openNode(t, dir, m)
	m.WaitConsole(`oscine-init: slot root-a is good`, later)

	const disk = "/dev/disk/by-id/virtio-OTHER"
	list := n.run("install", "--list", "-o", "wide")
	for _, words := range [][]string{{"/dev/vda", "no: this machine runs from it"}, {disk, "xfs", "yes"}} {
		line := ""
		for l := range strings.Lines(list) {
			if strings.Contains(l, words[0]) {
				line = l
			}
		}
		for _, w := range words {
			if !strings.Contains(line, w) {
				t.Errorf("the list of disks lacks %q:\n%s", words, list)
			}
		}
	}
	n.refuse([]string{"install", "--to", "vda", "--yes"}, "this machine runs from it")
	n.refuse([]string{"install", "--to", disk}, "--yes")
	n.refuse([]string{"install", "--to", disk, "--keep-data", "--yes"}, "without --keep-data")
	if got := n.run("install", "--to", disk, "--yes"); !strings.Contains(got, "is on "+disk) {
		t.Errorf("got %s", got)
	}
	if got := n.run("events"); !strings.Contains(got, "Installed") {
		t.Errorf("the events lack it:\n%s", got)
	}
	n.run("shutdown")
	m.WaitOff(later)

	damageESP(t, other, "/loader/loader.conf", []byte("timeouts"))
	loader := layout.LoaderPath(n.arch)
	damageESP(t, other, loader, alterImage(t, onESP(t, other, loader), func(_, text string) string {
		return strings.ReplaceAll(text, loaderNow, loaderOlder)
	}))
	m = machinetest.Start(t, machine.Options{Name: "installed", Image: other, Ports: ports, ExtraArgs: stickWith(t, p.dir)})
	n = openNode(t, dir, m)
	m.WaitConsole(`oscine-init: configuration taken from /oscine/machine.yaml of the ESP`, later)
	m.WaitConsole(`oscine-init: data grown from`, later)
	m.WaitConsole(`oscine-init: slot root-a is good`, later)
	if got := n.run("info"); !strings.Contains(got, "node1") {
		t.Errorf("another node answers:\n%s", got)
	}
	n.awaitOutput("loader/loader.conf was missing or damaged", "events", "--warnings")
	n.refuse([]string{"upgrade", "stick:NONE", "--dry-run"}, `no file system has the label "NONE": plug the stick in`)
	n.refuse([]string{"upgrade", "stick:RELEASES/none", "--dry-run"}, `the folder "none" on the stick: `)
	n.refuse([]string{"upgrade", "stick:RELEASES/releases", "--dry-run"}, "this version runs already")
	testLoader(n, m, other)
	testReset(n, m)
}

// testLoader restarts a machine whose boot loader says that it is older than that of
// the root: firmware starts the one on the root once, which then takes its place.
func testLoader(n *testNode, m *machinetest.Machine, disk string) {
	n.t.Helper()
	n.awaitOutput("BootLoaderStaged", "events")
	offset := len(m.Console())
	n.run("reboot")
	m.WaitConsoleAfter(offset, `oscine-init: slot root-a`, later)
	n.awaitAPI()
	n.awaitOutput("BootLoaderReplaced", "events")
	if loader := onESP(n.t, disk, layout.LoaderPath(n.arch)); !bytes.Contains(loader, []byte(loaderNow)) {
		n.t.Error("the boot loader was not replaced")
	}
}

// What boot loaders say of themselves: the one of the pinned package, and an older one.
const (
	loaderNow   = "#### LoaderInfo: systemd-boot 257."
	loaderOlder = "#### LoaderInfo: systemd-boot 256."
)

// onESP reads a file of a disk's ESP.
func onESP(t testing.TB, disk, name string) []byte {
	t.Helper()
	m, err := image.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	content, err := m.ReadESP(name)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// stickWith is a disk with FAT32 and what a node reads of a release folder before it
// fetches anything.
func stickWith(t *testing.T, folder string) (args []string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "stick.img")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 128 << 20
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	disk, err := fat32.Create(file.New(f, false), size, 0, layout.SectorSize, "RELEASES", true)
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(folder, func(from string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(from, ".json") {
			return err
		}
		below, err := filepath.Rel(folder, from)
		if err != nil {
			return err
		}
		to := path.Join("/releases", filepath.ToSlash(below))
		content, err := os.ReadFile(from)
		if err := errors.Join(err, disk.Mkdir(path.Dir(to))); err != nil {
			return err
		}
		w, err := disk.OpenFile(to, os.O_CREATE|os.O_RDWR)
		if err != nil {
			return err
		}
		_, err = w.Write(content)
		return errors.Join(err, w.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
	return []string{"-drive", "if=none,id=stick,format=raw,file=" + name, "-device", "virtio-blk-pci,drive=stick,serial=STICK"}
}

// damageESP writes something else of the same length into a file of a disk's ESP.
func damageESP(t *testing.T, disk, name string, content []byte) {
	t.Helper()
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	esp, err := fat32.Read(file.New(f, false), layout.ESPSize, layout.MiB, layout.SectorSize)
	if err != nil {
		t.Fatal(err)
	}
	w, err := esp.OpenFile(name, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// testReset erases what a node stores that nobody else configures, with the power
// cut while it does.
func testReset(n *testNode, m *machinetest.Machine) {
	n.t.Helper()
	n.run("secret", "set", "kept", "word=secret")
	n.refuse([]string{"reset"}, "--yes")
	offset := len(m.Console())
	n.run("reset", "--yes")
	m.WaitConsoleAfter(offset, `oscine-init: reset: erasing the data partition`, later)
	if err := m.Kill(); err != nil {
		n.t.Fatal(err)
	}
	offset = len(m.Console())
	m.Restart()
	m.WaitConsoleAfter(offset, `This node waits for its configuration`, later)
	m.WaitConsoleAfter(offset, `oscine-init: oscined is ready`, later) // as no node is that has an owner and no configuration
	text := m.Console()[offset:]
	if strings.Contains(text, "has an owner") || !strings.Contains(text, "slot root-a") {
		n.t.Errorf("after a reset:\n%s", text)
	}
	n.t.Logf("erased again after the power cut: %t", strings.Contains(text, "reset: the data partition is empty"))
	if err := m.Kill(); err != nil {
		n.t.Fatal(err)
	}
}
