package slot

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/uki"
	"oscine.dev/oscine/internal/uki/ukitest"
)

// twoGood is a disk that runs a version from slot A, with an older good one in B,
// and the copies that it is repaired from.
func twoGood(t *testing.T, key *uki.Key) (d *memoryDisk, s *Slots, c Copies, running, idle string) {
	t.Helper()
	now, before := makeVersion(t, key, "2.0"), makeVersion(t, key, "1.0")
	d, s = installed(now)
	running, idle = "EFI/Linux/oscine_2.0.efi", "EFI/Linux/oscine_1.0.efi"
	d.files[idle] = before.image
	copy(d.parts[release.PartitionRootB].data, before.root)
	copy(d.parts[release.PartitionRootB].durable, before.root)
	loader, err := key.Sign(ukitest.Stub())
	if err != nil {
		t.Fatal(err)
	}
	c = Copies{Dir: filepath.Join(t.TempDir(), "boot"), Files: map[string][]byte{"EFI/BOOT/BOOTX64.EFI": loader, "loader/loader.conf": []byte("timeout 0\n")}}
	for name, content := range c.Files {
		d.files[name] = content
	}
	return d, s, c, running, idle
}

func mustRepair(t *testing.T, s *Slots, c Copies, want ...string) {
	t.Helper()
	got, err := s.Repair(t.Context(), c)
	slices.Sort(got)
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("repaired %q, %v, want %q", got, err, want)
	}
}

func flipped(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)/2] ^= 1
	return b
}

func TestRepair(t *testing.T) {
	d, s, c, running, idle := twoGood(t, newKey(t))
	mustRepair(t, s, c)
	intact := map[string][]byte{}
	for name, content := range d.files {
		intact[name] = content
	}
	const loader, settings = "EFI/BOOT/BOOTX64.EFI", "loader/loader.conf"
	for _, c2 := range []struct {
		what   string
		damage func()
		want   []string
	}{
		{"the boot loader is gone", func() { delete(d.files, loader) }, []string{loader}},
		{"a bit of the boot loader", func() { d.files[loader] = flipped(d.files[loader]) }, []string{loader}},
		{"the settings", func() { d.files[settings] = nil }, []string{settings}},
		{"a bit of the running image", func() { d.files[running] = flipped(d.files[running]) }, []string{running}},
		{"the running image is gone", func() { delete(d.files, running) }, []string{running}},
		{"the head of the other image", func() { d.files[idle] = []byte("MZ") }, []string{idle}},
		{"the other image is gone", func() { delete(d.files, idle) }, []string{idle}},
		{"all", func() { empty(d.files) }, []string{loader, settings, running, idle}},
	} {
		c2.damage()
		mustRepair(t, s, c, c2.want...)
		for name, want := range intact {
			if !bytes.Equal(d.files[name], want) {
				t.Errorf("%s: %s is not as it was", c2.what, name)
			}
		}
		if len(d.files) != len(intact) {
			t.Errorf("%s: the ESP holds %d files, want %d", c2.what, len(d.files), len(intact))
		}
	}
}

func empty(files map[string][]byte) {
	for name := range files {
		delete(files, name)
	}
}

// A file that cannot be read is damaged, and keeps no other from its repair.
func TestRepairUnreadable(t *testing.T) {
	d, s, c, running, idle := twoGood(t, newKey(t))
	mustRepair(t, s, c)
	const loader, settings = "EFI/BOOT/BOOTX64.EFI", "loader/loader.conf"
	d.broken = map[string]int{loader: 0, running: len(d.files[running]) - 1, idle: 0}
	mustRepair(t, s, c, loader, running, idle)
	mustRepair(t, s, c)

	// A copy that cannot be read, a folder here.
	file := filepath.Join(c.Dir, filepath.Base(idle))
	delete(d.files, idle)
	if err := errors.Join(os.Remove(file), os.Mkdir(file, 0o700)); err != nil {
		t.Fatal(err)
	}
	d.files[running], d.files[settings] = flipped(d.files[running]), nil
	got, err := s.Repair(t.Context(), c)
	slices.Sort(got)
	if err == nil || !slices.Equal(got, []string{running, settings}) {
		t.Errorf("repaired %q, %v", got, err)
	}
}

// What must not come back does not.
func TestRepairLeaves(t *testing.T) {
	key := newKey(t)
	t.Run("a version that was given up", func(t *testing.T) {
		d, s, c, _, idle := twoGood(t, key)
		mustRepair(t, s, c)
		d.files["EFI/Linux/oscine_1.0+0-3.efi"] = d.files[idle]
		delete(d.files, idle)
		mustRepair(t, s, c)
		delete(d.files, "EFI/Linux/oscine_1.0+0-3.efi")
		mustRepair(t, s, c)
	})
	t.Run("a version whose root is gone", func(t *testing.T) {
		d, s, c, _, idle := twoGood(t, key)
		mustRepair(t, s, c)
		delete(d.files, idle)
		d.parts[release.PartitionRootB].data[5] ^= 1
		mustRepair(t, s, c)
		d.parts[release.PartitionRootB].data[5] ^= 1
		mustRepair(t, s, c) // its copy is gone too
	})
	t.Run("another boot loader", func(t *testing.T) {
		d, s, c, _, _ := twoGood(t, key)
		other, err := key.Sign(append(ukitest.Stub(), make([]byte, 512)...))
		if err != nil {
			t.Fatal(err)
		}
		d.files["EFI/BOOT/BOOTX64.EFI"] = other
		mustRepair(t, s, c)
	})
	t.Run("a copy that is damaged", func(t *testing.T) {
		d, s, c, running, _ := twoGood(t, key)
		mustRepair(t, s, c)
		file := filepath.Join(c.Dir, filepath.Base(running))
		if err := os.WriteFile(file, []byte("MZ"), 0o600); err != nil {
			t.Fatal(err)
		}
		mustRepair(t, s, c)
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, d.files[running]) {
			t.Errorf("the copy was not made again: %v", err)
		}
	})
	t.Run("no room", func(t *testing.T) {
		d, s, c, running, _ := twoGood(t, key)
		mustRepair(t, s, c)
		d.files[running] = flipped(d.files[running])
		d.files["foreign"] = make([]byte, testESPSize)
		if got, err := s.Repair(t.Context(), c); !errors.Is(err, ErrNoRoom) || len(got) > 0 {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// Power fails at each point of a repair: another one ends it, and what was whole
// stays whole.
func TestRepairPowerCut(t *testing.T) {
	key := newKey(t)
	for at := 1; at < 20; at++ {
		d, s, c, running, idle := twoGood(t, key)
		mustRepair(t, s, c)
		want := bytes.Clone(d.files[running])
		d.files[running] = flipped(want)
		if err := (memoryESP{d}).Flush(); err != nil {
			t.Fatal(err)
		}
		d.operations, d.failAt, d.cut = 0, at, true
		_, err := s.Repair(t.Context(), c)
		d.restart(rand.New(rand.NewPCG(uint64(at), 1)))
		other := d.files[idle]
		if _, again := s.Repair(t.Context(), c); again != nil {
			t.Fatalf("power failed at %d: %v", at, again)
		}
		if !bytes.Equal(d.files[running], want) || !bytes.Equal(d.files[idle], other) {
			t.Errorf("power failed at %d: the images are not whole", at)
		}
		if err == nil {
			return // it was through before
		}
	}
}
