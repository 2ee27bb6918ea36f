package slot

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/uki"
	"oscine.dev/oscine/internal/uki/ukitest"
	"oscine.dev/oscine/internal/update"
)

const (
	testKernel  = "7.2.12-cloud-amd64"
	testRoot    = 40 // blocks of data
	testSlot    = 64 * release.BlockSize
	testESPSize = 4 << 20
)

// version is a release made for a test.
type version struct {
	manifest *update.Manifest
	image    []byte
	root     []byte
}

func newKey(t *testing.T) *uki.Key {
	t.Helper()
	key, err := uki.DevelopmentKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// makeVersion makes a release whose root is full of its version.
func makeVersion(t *testing.T, key *uki.Key, name string) *version {
	t.Helper()
	root := bytes.Repeat([]byte(name+" "), testRoot*release.BlockSize)[:testRoot*release.BlockSize]
	tree, verity, err := release.HashTree(bytes.NewReader(root), []byte("salt"))
	if err != nil {
		t.Fatal(err)
	}
	unsigned, err := uki.Assemble(ukitest.Stub(), []uki.Section{
		{Name: ".cmdline", Data: []byte("quiet " + verity.Argument())}, {Name: ".uname", Data: []byte(testKernel)},
		{Name: ".osrel", Data: []byte("ID=oscine\nIMAGE_VERSION=" + name + "\n")},
		{Name: ".initrd", Data: []byte("initramfs")}, {Name: ".linux", Data: []byte("kernel of " + name)},
	})
	if err != nil {
		t.Fatal(err)
	}
	image, err := key.Sign(unsigned)
	if err != nil {
		t.Fatal(err)
	}
	root = append(root, tree...)
	return &version{
		manifest: &update.Manifest{
			Format: update.ManifestFormat, Version: name, Arch: "amd64", Flavour: "cloud", Kernel: testKernel, Built: time.Now(),
			RootHash: fmt.Sprintf("%x", verity.RootHash),
			Image:    update.Content{Size: int64(len(image)), SHA256: sha256.Sum256(image)},
			Root:     update.Content{Size: int64(len(root)), SHA256: sha256.Sum256(root)},
		},
		image: image, root: root,
	}
}

// installed is a disk that runs v from slot A.
func installed(v *version) (*memoryDisk, *Slots) {
	d := newMemoryDisk(testSlot, testESPSize)
	image := path.Join(release.ImageFolder, "oscine_"+v.manifest.Version+".efi")
	d.files[image] = v.image
	d.files["EFI/BOOT/BOOTX64.EFI"] = []byte("loader")
	copy(d.parts[release.PartitionRootA].data, v.root)
	copy(d.parts[release.PartitionRootA].durable, v.root)
	d.durable = map[string][]byte{image: v.image, "EFI/BOOT/BOOTX64.EFI": []byte("loader")}
	return d, New(d, func() release.Facts {
		return release.Facts{Slot: release.PartitionRootA, Disk: "vda", Image: path.Join(release.ImageFolder, "oscine_"+v.manifest.Version+"+2-1.efi")}
	})
}

// upgrade takes every step from the release to the next boot.
func upgrade(s *Slots, v *version) error {
	if err := s.Check(v.manifest); err != nil {
		return err
	}
	verity, err := s.CheckImage(v.manifest, v.image)
	if err != nil {
		return err
	}
	if err := s.Clear(); err != nil {
		return err
	}
	p, err := s.Idle()
	if err != nil {
		return err
	}
	for at := 0; at < len(v.root); at += 8 * release.BlockSize {
		if _, err := p.WriteAt(v.root[at:min(len(v.root), at+8*release.BlockSize)], int64(at)); err != nil {
			return err
		}
	}
	if err := s.CheckRoot(context.Background(), verity); err != nil {
		return err
	}
	if err := s.Stage(v.manifest.Version, v.image); err != nil {
		return err
	}
	return s.Arm(v.manifest.Version)
}

// boots is the version that the boot loader would start, or what goes wrong. It
// takes images as systemd-boot does: those without tries last, then the newest.
func boots(d *memoryDisk) (string, error) {
	var names []string
	for name := range d.files {
		if _, ok := release.ParseEntry(path.Base(name)); ok && path.Dir(name) == release.ImageFolder {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "", errors.New("no kernel image is left")
	}
	slices.SortFunc(names, func(a, b string) int {
		x, _ := release.ParseEntry(path.Base(a))
		y, _ := release.ParseEntry(path.Base(b))
		rank := map[bool]int{true: 1}
		return cmp.Or(rank[x.Bad()]-rank[y.Bad()], -release.CompareVersions(x.Version(), y.Version()), strings.Compare(a, b))
	})
	if _, err := uki.Signer(d.files[names[0]]); err != nil {
		return "", fmt.Errorf("the firmware refuses %s: %w", names[0], err)
	}
	image, err := uki.Read(d.files[names[0]])
	if err != nil {
		return "", err
	}
	verity, err := image.Verity()
	if err != nil {
		return "", err
	}
	for _, p := range d.parts {
		if checkRoot(context.Background(), p, verity) == nil {
			entry, _ := release.ParseEntry(path.Base(names[0]))
			return entry.Version(), nil
		}
	}
	return "", fmt.Errorf("no slot holds the root of %s", names[0])
}

// TestUpgradeCut cuts the power, or fails one operation, at each operation of an
// upgrade and of a way back to an older version. The machine then always starts a
// version that is whole, and the next try succeeds.
func TestUpgradeCut(t *testing.T) {
	key := newKey(t)
	one, two, three := makeVersion(t, key, "1.0"), makeVersion(t, key, "1.1"), makeVersion(t, key, "0.9")
	for name, next := range map[string]*version{"upgrade": two, "downgrade": three} {
		for _, cut := range []bool{true, false} {
			points := 0
			for at := 1; ; at++ {
				done := false
				for seed := range uint64(20) {
					d, s := installed(one)
					d.failAt, d.cut = at, cut
					err := upgrade(s, next)
					if err == nil && d.operations < at {
						done = true
						break
					}
					if err == nil && !cut {
						t.Errorf("%s: operation %d failed, and nobody noticed", name, at)
					}
					if cut {
						d.restart(rand.New(rand.NewPCG(seed, uint64(at))))
					}
					d.failAt = 0
					got, err := boots(d)
					if err != nil || got != "1.0" && got != next.manifest.Version {
						t.Errorf("%s, cut %t at operation %d, seed %d: boots %q, %v; the ESP holds %q", name, cut, at, seed, got, err, slices.Sorted(mapsKeys(d.files)))
						continue
					}
					if got != "1.0" {
						continue // it got as far as that
					}
					if err := s.Disarm(); err != nil {
						t.Errorf("%s, cut %t at operation %d, seed %d: clean up: %v", name, cut, at, seed, err)
						continue
					}
					if err := upgrade(s, next); err != nil {
						t.Errorf("%s, cut %t at operation %d, seed %d: the next try: %v", name, cut, at, seed, err)
					} else if got, err := boots(d); err != nil || got != next.manifest.Version {
						t.Errorf("%s, cut %t at operation %d, seed %d: after the next try: boots %q, %v", name, cut, at, seed, got, err)
					}
				}
				if done {
					break
				}
				points++
			}
			t.Logf("%s, cut %t: %d operations", name, cut, points)
			if points < 9 {
				t.Errorf("%s: only %d operations were tried", name, points)
			}
		}
	}
}

func mapsKeys(m map[string][]byte) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// TestDisarmCut cuts the power, or fails one operation, at each operation of the
// cleaning up after an upgrade that was armed.
func TestDisarmCut(t *testing.T) {
	key := newKey(t)
	one, two, three := makeVersion(t, key, "1.0"), makeVersion(t, key, "1.1"), makeVersion(t, key, "0.9")
	for name, next := range map[string]*version{"upgrade": two, "downgrade": three} {
		for _, cut := range []bool{true, false} {
			points := 0
			for at := 1; points == at-1; at++ {
				for seed := range uint64(40) {
					d, s := installed(one)
					if err := upgrade(s, next); err != nil {
						t.Fatal(err)
					}
					d.operations, d.failAt, d.cut = 0, at, cut
					if err := s.Disarm(); err == nil && d.operations < at {
						break
					}
					points = at
					if cut {
						d.restart(rand.New(rand.NewPCG(seed, uint64(at))))
					}
					d.failAt = 0
					if got, err := boots(d); err != nil || got != "1.0" && got != next.manifest.Version {
						t.Errorf("%s, cut %t at operation %d, seed %d: boots %q, %v; the ESP holds %q", name, cut, at, seed, got, err, slices.Sorted(mapsKeys(d.files)))
						continue
					}
					if err := s.Disarm(); err != nil {
						t.Errorf("%s, cut %t at operation %d, seed %d: once more: %v", name, cut, at, seed, err)
					} else if got, err := boots(d); err != nil || got != "1.0" {
						t.Errorf("%s, cut %t at operation %d, seed %d: after that: boots %q, %v", name, cut, at, seed, got, err)
					}
				}
			}
			t.Logf("%s, cut %t: %d operations", name, cut, points)
			if points < 2 || name == "downgrade" && points < 7 {
				t.Errorf("%s: only %d operations were tried", name, points)
			}
		}
	}
}

// TestDisarmKeepsGood holds that the version to go back to stays.
func TestDisarmKeepsGood(t *testing.T) {
	key := newKey(t)
	one, two := makeVersion(t, key, "1.0"), makeVersion(t, key, "1.1")
	d, s := installed(one)
	if err := upgrade(s, two); err != nil {
		t.Fatal(err)
	}
	if err := (memoryESP{d}).Rename("EFI/Linux/oscine_1.1+3.efi", "oscine_1.1.efi"); err != nil {
		t.Fatal(err)
	}
	d.files["EFI/Linux/oscine_0.7.efi"] = two.image[:len(two.image)/3]
	if err := s.Disarm(); err != nil {
		t.Fatal(err)
	}
	state, err := s.State()
	if err != nil || state.Idle.Version != "1.1" || state.Idle.Health != Good || len(state.Stray) != 0 {
		t.Errorf("got %s, %q, %v", state.Idle, state.Stray, err)
	}
}

// TestRefused holds that what cannot work is refused before anything is changed.
func TestRefused(t *testing.T) {
	key := newKey(t)
	one := makeVersion(t, key, "1.0")
	foreign := makeVersion(t, newKey(t), "1.1")
	for name, test := range map[string]struct {
		change func(*version, *memoryDisk, *Slots)
		want   error
		text   string
	}{
		"the running version": {func(v *version, _ *memoryDisk, _ *Slots) { v.manifest.Version = "1.0" }, ErrRunning, "1.0"},
		"slot too small":      {func(v *version, _ *memoryDisk, _ *Slots) { v.manifest.Root.Size = testSlot + release.BlockSize }, ErrNoRoom, "slot root-b"},
		"ESP full":            {func(_ *version, d *memoryDisk, _ *Slots) { d.files["EFI/other.bin"] = make([]byte, 3<<20) }, ErrNoRoom, "ESP"},
		"running on trial": {func(_ *version, d *memoryDisk, _ *Slots) {
			d.files["EFI/Linux/oscine_1.0+2-1.efi"] = d.files["EFI/Linux/oscine_1.0.efi"]
			delete(d.files, "EFI/Linux/oscine_1.0.efi")
		}, ErrOnTrial, "1.0"},
		"started directly": {func(_ *version, _ *memoryDisk, s *Slots) {
			s.facts = func() release.Facts { return release.Facts{Slot: "root-a"} }
		}, ErrUnusable, "boot loader"},
		"own image gone":     {func(_ *version, d *memoryDisk, _ *Slots) { delete(d.files, "EFI/Linux/oscine_1.0.efi") }, ErrUnusable, "not on the ESP"},
		"another image":      {func(v *version, _ *memoryDisk, _ *Slots) { v.image = one.image }, ErrImage, "manifest names"},
		"another key":        {func(v *version, _ *memoryDisk, _ *Slots) { *v = *foreign }, ErrImage, "not the key"},
		"wrong architecture": {func(v *version, _ *memoryDisk, _ *Slots) { v.manifest.Arch = "arm64" }, ErrImage, "amd64"},
		"wrong kernel":       {func(v *version, _ *memoryDisk, _ *Slots) { v.manifest.Kernel = "6.1" }, ErrImage, "kernel"},
		"another flavour":    {func(v *version, _ *memoryDisk, _ *Slots) { v.manifest.Flavour = "rt" }, ErrImage, "flavour"},
		"another version":    {func(v *version, _ *memoryDisk, _ *Slots) { v.manifest.Version = "1.2" }, ErrImage, "version \"1.1\""},
		"another root":       {func(v *version, _ *memoryDisk, _ *Slots) { v.manifest.RootHash = one.manifest.RootHash }, ErrImage, "opens the root"},
		"altered image": {func(v *version, _ *memoryDisk, _ *Slots) {
			v.image = bytes.Clone(v.image)
			v.image[0x420] ^= 1
			v.manifest.Image.SHA256 = sha256.Sum256(v.image)
		}, ErrImage, ""},
	} {
		v := makeVersion(t, key, "1.1")
		d, s := installed(one)
		test.change(v, d, s)
		before := d.operations
		err := upgrade(s, v)
		if !errors.Is(err, test.want) || !strings.Contains(fmt.Sprint(err), test.text) {
			t.Errorf("%s: got %v, want %v with %q", name, err, test.want, test.text)
		}
		if d.operations != before {
			t.Errorf("%s: %d operations changed the disk before it was refused", name, d.operations-before)
		}
	}
}

// TestDamagedRoot writes a root with one bit turned over: it is never staged.
func TestDamagedRoot(t *testing.T) {
	key := newKey(t)
	one := makeVersion(t, key, "1.0")
	for _, at := range []int{5, testRoot*release.BlockSize - 1, testRoot*release.BlockSize + 40} {
		v := makeVersion(t, key, "1.1")
		v.root[at] ^= 4
		d, s := installed(one)
		if err := upgrade(s, v); !errors.Is(err, ErrRoot) {
			t.Errorf("byte %d: got %v", at, err)
		}
		if got, err := boots(d); got != "1.0" || err != nil {
			t.Errorf("byte %d: boots %q, %v", at, got, err)
		}
	}
}

func TestState(t *testing.T) {
	key := newKey(t)
	one, two := makeVersion(t, key, "1.0"), makeVersion(t, key, "1.1")
	d, s := installed(one)
	d.files["EFI/Linux/oscine_0.1.efi"] = []byte("cut off")
	d.files["EFI/Linux/other.efi"] = []byte("somebody's")
	check := func(want string, health Health) {
		t.Helper()
		state, err := s.State()
		if err != nil {
			t.Fatal(err)
		}
		if state.Active.Version != "1.0" || state.Active.Health != Good || !state.Active.Running || state.Active.Slot != "root-a" {
			t.Errorf("active: %+v", state.Active)
		}
		if state.Idle.Version != want || state.Idle.Health != health || state.Idle.Slot != "root-b" {
			t.Errorf("idle: got %+v, want %s %s", state.Idle, want, health)
		}
	}
	check("", Empty)
	if err := upgrade(s, two); err != nil {
		t.Fatal(err)
	}
	check("1.1", Trial)
	if _, ok := d.files["EFI/Linux/oscine_0.1.efi"]; ok {
		t.Error("a stray image stayed")
	}
	if _, ok := d.files["EFI/Linux/other.efi"]; !ok {
		t.Error("somebody else's image was removed")
	}
	esp := memoryESP{d}
	if err := esp.Rename("EFI/Linux/oscine_1.1+3.efi", "oscine_1.1+0-3.efi"); err != nil {
		t.Fatal(err)
	}
	check("1.1", Bad)
	if err := s.Disarm(); err != nil {
		t.Fatal(err)
	}
	check("", Empty)
}
