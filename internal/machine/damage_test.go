package machine_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/diskfs/go-diskfs/partition/gpt"
	"oscine.dev/oscine/internal/machine"
	"oscine.dev/oscine/internal/machine/machinetest"
	"oscine.dev/oscine/internal/release"
)

// disk is a copy of an image that a test may damage.
type disk struct {
	*os.File
	t *testing.T
}

func copyImage(t *testing.T, image string) disk {
	t.Helper()
	from, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.Create(filepath.Join(t.TempDir(), "disk.img"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = to.Close() })
	info, err := from.Stat()
	if err != nil {
		t.Fatal(err)
	}
	d := disk{to, t}
	d.copySparse(0, io.NewSectionReader(from, 0, info.Size()))
	if err := to.Truncate(info.Size()); err != nil {
		t.Fatal(err)
	}
	return d
}

// copySparse writes what is not zero.
func (d disk) copySparse(at int64, from io.Reader) {
	d.t.Helper()
	buf, zero := make([]byte, 1<<20), strings.Repeat("\x00", 1<<20)
	for {
		n, err := io.ReadFull(from, buf)
		if n > 0 && string(buf[:n]) != zero[:n] {
			if _, err := d.WriteAt(buf[:n], at); err != nil {
				d.t.Fatal(err)
			}
		}
		at += int64(n)
		if err != nil {
			return // the end; a short image would not boot
		}
	}
}

// partition returns a partition's place in bytes.
func (d disk) partition(name string) (start, size int64) {
	d.t.Helper()
	table, err := gpt.Read(d, 512, 512)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, p := range table.Partitions {
		if p.Name == name {
			return int64(p.Start) * 512, int64(p.End-p.Start+1) * 512
		}
	}
	d.t.Fatalf("no partition %s", name)
	return 0, 0
}

// flip turns one bit over.
func (d disk) flip(at int64) {
	d.t.Helper()
	b := make([]byte, 1)
	if _, err := d.ReadAt(b, at); err != nil {
		d.t.Fatal(err)
	}
	if _, err := d.WriteAt([]byte{b[0] ^ 0x10}, at); err != nil {
		d.t.Fatal(err)
	}
}

// verity reads what the image's kernel command line says of its root.
func verity(t *testing.T, image string) release.Verity {
	t.Helper()
	line, err := machine.CommandLine(image)
	if err != nil {
		t.Fatal(err)
	}
	v, err := release.FindVerity(line)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestDamagedTree flips one bit at the top of the hash tree of slot A: stage 1
// refuses the slot, and takes B if B holds the same root.
func TestDamagedTree(t *testing.T) {
	t.Parallel()
	image := machinetest.Image(t, "")
	d := copyImage(t, image)
	start, size := d.partition(release.PartitionRootA)
	spare, _ := d.partition(release.PartitionRootB)
	top := start + int64(verity(t, image).Blocks)*release.BlockSize
	d.flip(top + 100)

	m := machinetest.Start(t, machine.Options{Image: d.Name(), Direct: true, NoReboot: true})
	m.WaitOff(bootTimeout)
	const refusal = "cannot start the system: no slot holds the root of this version: root-a on vda2: the top of its hash tree"
	if text := m.Console(); !strings.Contains(text, refusal) || strings.Contains(text, "oscined") {
		t.Errorf("a damaged slot: got\n%s", text)
	}

	d.flip(top + 100)
	d.copySparse(spare, io.NewSectionReader(d, start, size))
	d.flip(top + 100)
	// The configuration that a person put on the ESP is taken on this first boot.
	if err := d.esp(false).Mkdir("oscine"); err != nil {
		t.Fatal(err)
	}
	d.writeESP("oscine/machine.yaml", machineFile(t))
	m = machinetest.Start(t, machine.Options{Name: "spare", Image: d.Name(), Direct: true})
	m.WaitConsole(`oscine-init: slot root-b on vda3`, bootTimeout)
	m.WaitConsole(`oscine-init: configuration taken from /oscine/machine.yaml of the ESP`, bootTimeout)
	m.WaitConsole(apiLine, bootTimeout)
}

// TestDamagedBlock flips one bit of the data that the root's own superblock
// lies in: the kernel refuses to read it and starts over.
func TestDamagedBlock(t *testing.T) {
	t.Parallel()
	d := copyImage(t, machinetest.Image(t, ""))
	start, _ := d.partition(release.PartitionRootA)
	d.flip(start + 1024 + 48)
	m := machinetest.Start(t, machine.Options{Image: d.Name(), Direct: true, NoReboot: true})
	m.WaitOff(bootTimeout)
	text := m.Console()
	for _, line := range []string{"data block 0 is corrupted", "Kernel panic - not syncing: dm-verity device corrupted"} {
		if !strings.Contains(text, line) {
			t.Errorf("the console lacks %q", line)
		}
	}
	if strings.Contains(text, "slot root-a") {
		t.Error("the damaged root was mounted")
	}
}

// TestWatchdog hangs the kernel of a running machine: the hardware watchdog
// resets it, and it comes back. All that with a data partition that cannot be
// mounted, which keeps no machine from coming up and saying so.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	d := copyImage(t, machinetest.Image(t, "amd64"))
	data, _ := d.partition(release.PartitionData)
	const superblock, magic = 1024, 56 // fs/ext4/ext4.h
	d.flip(data + superblock + magic)
	stub := filepath.Join(t.TempDir(), "gdb.sock")
	m := machinetest.Start(t, machine.Options{
		Image: d.Name(), Arch: "amd64", Direct: true, CPUs: "1", ExtraArgs: []string{"-gdb", "unix:" + stub + ",server=on,wait=off"},
	})
	m.WaitConsole(`oscine-init: cannot use the data partition, everything written will be lost at power-off: mount /dev/vda4`, bootTimeout)
	m.WaitConsole(`oscine-init: watchdog \(i6300ESB timer\) armed with 1m0s`, bootTimeout)
	// Nobody can tell whether it has an owner: it waits, and is not open.
	m.WaitConsole(`configures it with an admin's context, or with --console-code ([A-Z0-9]{4}-){3}[A-Z0-9]{4}`, bootTimeout)
	hung := len(m.Console())
	hangKernel(t, stub)
	began := time.Now()
	m.WaitConsoleAfter(hung, `oscine-init: slot root-a`, bootTimeout)
	t.Logf("started again %s after it hung", time.Since(began).Round(time.Second))
}
