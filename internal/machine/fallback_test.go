package machine_test

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
	"oscine.dev/oscine/internal/machine"
	"oscine.dev/oscine/internal/machine/machinetest"
	"oscine.dev/oscine/internal/release"
)

// nextVersion is newer than any release, so that the boot loader prefers it.
const nextVersion = "999.0"

// updated is the disk of a machine that has the tree's image in slot A and a
// newer version of it in slot B, under the given name on the ESP. newer is that
// version's own image.
func updated(t *testing.T, newer, name string) disk {
	t.Helper()
	d := copyImage(t, machinetest.Image(t, ""))
	from := openImage(t, newer)
	start, size := from.partition(release.PartitionRootA)
	spare, _ := d.partition(release.PartitionRootB)
	d.copySparse(spare, from.section(start, size))

	uki := from.readESP("EFI/Linux/oscine_" + nextVersion + "+3.efi")
	d.writeESP("EFI/Linux/"+name, uki)
	return d
}

func openImage(t *testing.T, name string) disk {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return disk{f, t}
}

func (d disk) section(at, size int64) io.Reader { return io.NewSectionReader(d, at, size) }

func (d disk) esp(readOnly bool) *fat32.FileSystem {
	d.t.Helper()
	start, size := d.partition(release.PartitionESP)
	esp, err := fat32.Read(file.New(d.File, readOnly), size, start, 512)
	if err != nil {
		d.t.Fatal(err)
	}
	return esp
}

func (d disk) readESP(name string) []byte {
	d.t.Helper()
	f, err := d.esp(true).OpenFile(name, os.O_RDONLY)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	raw, err := io.ReadAll(f)
	if err != nil {
		d.t.Fatal(err)
	}
	return raw
}

func (d disk) writeESP(name string, content []byte) {
	d.t.Helper()
	f, err := d.esp(false).OpenFile(name, os.O_CREATE|os.O_RDWR)
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := f.Write(content); err != nil {
		d.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		d.t.Fatal(err)
	}
}

// TestFallback damages the newer of two versions: the machine goes back to the
// older one by itself.
func TestFallback(t *testing.T) {
	machinetest.Need(t)
	newer := machinetest.ImageOf(t, nextVersion)

	// Its kernel panics as often as it has tries.
	t.Run("on trial", func(t *testing.T) {
		t.Parallel()
		d := updated(t, newer, "oscine_"+nextVersion+"+2.efi")
		start, _ := d.partition(release.PartitionRootB)
		d.flip(start + 1024 + 48)
		m := machinetest.Start(t, machine.Options{Image: d.Name()})
		m.WaitConsole(`oscine-init: slot root-a is good`, 2*bootTimeout)
		if n := strings.Count(m.Console(), "Kernel panic"); n != 2 {
			t.Errorf("the damaged version panicked %d times, want 2", n)
		}
	})

	// It was good once and has no tries to lose: stage 1 puts it last at once.
	t.Run("rotten", func(t *testing.T) {
		t.Parallel()
		good := "oscine_" + nextVersion + ".efi"
		d := updated(t, newer, good)
		start, _ := d.partition(release.PartitionRootB)
		d.flip(start + int64(verity(t, newer).Blocks)*release.BlockSize)
		m := machinetest.Start(t, machine.Options{Image: d.Name()})
		m.WaitConsole(`oscine-init: EFI/Linux/`+good+` is demoted: no slot holds its root`, bootTimeout)
		m.WaitConsole(`oscine-init: slot root-a is good`, bootTimeout)
		if n := strings.Count(m.Console(), "cannot start the system"); n != 1 {
			t.Errorf("the damaged version was tried %d times, want 1", n)
		}
	})
}
