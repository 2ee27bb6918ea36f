package pack

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/bench/guest"
	"oscine.dev/oscine/internal/bench/guest/guesttest"
	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/release"
)

// TestMain lets the test program be the init of a guest, too.
func TestMain(m *testing.M) {
	if guest.Inside() && os.Getpid() == 1 {
		guest.Main(m.Run)
	}
	os.Exit(m.Run())
}

// guestModules are the kernel's modules behind mounts through dm-verity, in the order
// in which they are loaded.
var guestModules = []string{"drivers/md/dm-mod", "drivers/md/dm-bufio", "lib/reed_solomon/reed_solomon", "drivers/md/dm-verity", "fs/erofs/erofs", "drivers/block/loop"}

// TestInMachine boots the product's kernel with this test program as its init.
func TestInMachine(t *testing.T) {
	guesttest.Need(t)
	source, err := debian.Open(os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := source.Tree(t.Context(), "kernel-cloud", runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"good.erofs": filepath.Join(t.TempDir(), "good.erofs")}
	raw := makePack(t, runtime.GOARCH, random(6_000_000))
	if err := os.WriteFile(files["good.erofs"], raw, 0o600); err != nil {
		t.Fatal(err)
	}
	for i, name := range guestModules {
		found, err := filepath.Glob(filepath.Join(tree.Dir, "usr/lib/modules/*/kernel", name+".ko*"))
		if err != nil || len(found) != 1 {
			t.Fatalf("the module %s: %v, %v", name, found, err)
		}
		files[fmt.Sprintf("modules/%d-%s", i, filepath.Base(found[0]))] = found[0]
	}
	guesttest.RunKernelTests(t, guest.Options{Memory: 1024, Files: files}, 10*time.Minute)
}

// kernelStore is a store in a guest with a pack in it, and the pack's bytes.
func kernelStore(t *testing.T) (s *Store, c *cluster, raw []byte) {
	t.Helper()
	guesttest.NeedGuest(t)
	modules, err := filepath.Glob("/modules/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range modules {
		if err := linux.LoadModule(m, ""); err != nil {
			t.Fatal(err)
		}
	}
	s, c, _ = openTestStore(t)
	if raw, err = os.ReadFile("/good.erofs"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.install(s, raw); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Remove("e"); err != nil {
			t.Error(err)
		}
		noDevices(t)
	})
	return s, c, raw
}

// noDevices holds that no mapping and no loop device in use is left. The kernel
// removes them a moment after the last use.
func noDevices(t *testing.T) {
	t.Helper()
	var names, loops []string
	for range 100 {
		var err error
		if names, err = linux.Mappings(); err != nil {
			t.Fatal(err)
		}
		if loops, err = filepath.Glob("/sys/block/loop*/loop/backing_file"); err != nil {
			t.Fatal(err)
		}
		if len(names)+len(loops) == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("left behind: mappings %q, loop devices %q", names, loops)
}

// flip turns a bit of a pack's file over, in the block of its data that holds the
// bytes at a place.
func flip(t *testing.T, file string, at int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{b[0] ^ 0x10}, at); err != nil {
		t.Fatal(err)
	}
}

// forget drops what the kernel has in memory of files.
func forget(t *testing.T) {
	t.Helper()
	unix.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0o200); err != nil {
		t.Fatal(err)
	}
}

// A block that was altered under a mounted pack is a read error, the pack counts as
// damaged, and the same pack installed again is mounted good beside what still runs
// from the old one.
func TestKernelDamage(t *testing.T) {
	s, c, raw := kernelStore(t)
	told := 0
	s.Damaged = func() { told++ }
	p, dir, err := s.Mount("e")
	if err != nil {
		t.Fatal(err)
	}
	if p.Unverified != "" {
		t.Fatalf("it is not mounted through dm-verity: %s", p.Unverified)
	}
	program := filepath.Join(dir, "usr/bin/w")
	want, err := os.ReadFile(program)
	if err != nil || len(want) != 6_000_000 {
		t.Fatalf("read %d bytes, %v", len(want), err)
	}
	running, err := os.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	if found, err := s.FindDamage(); err != nil || len(found) != 0 {
		t.Errorf("a good pack: got %+v, %v", found, err)
	}

	flip(t, p.File, int64(len(raw)/2))
	forget(t)
	if got, err := os.ReadFile(program); !errors.Is(err, unix.EIO) || len(got) > len(want)*3/4 || !bytes.HasPrefix(want, got) {
		t.Errorf("read %d bytes of an altered file, %v, want EIO and nothing wrong before", len(got), err)
	}
	found, err := s.FindDamage()
	if err != nil || len(found) != 1 || found[0].Whole || found[0].Name != "e" || told != 1 {
		t.Errorf("found %+v, %v, told %d times", found, err, told)
	}
	if found, err := s.FindDamage(); err != nil || len(found) != 0 {
		t.Errorf("found again: %+v, %v", found, err)
	}
	if _, _, err := s.Mount("e"); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "oscine pack install FILE") {
		t.Errorf("mounted while damaged: %v", err)
	}

	if _, err := c.install(s, raw); err != nil {
		t.Fatal(err)
	}
	if p, _, err = s.Mount("e"); err != nil || !p.Damaged.IsZero() {
		t.Fatalf("installed again: %+v, %v", p, err)
	}
	if got, err := os.ReadFile(program); err != nil || !bytes.Equal(got, want) {
		t.Errorf("installed again: read %d bytes, %v", len(got), err)
	}
	if _, err := running.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := running.Read(make([]byte, 4096)); err != nil {
		t.Errorf("what runs from the old one reads a good block: %v", err)
	}
	if err := running.Close(); err != nil {
		t.Fatal(err)
	}
}

// A file that is whole again, since somebody installed it meanwhile or since a block
// was only read wrong, is mounted again and not damaged.
func TestKernelReadWrong(t *testing.T) {
	s, _, raw := kernelStore(t)
	p, dir, err := s.Mount("e")
	if err != nil {
		t.Fatal(err)
	}
	flip(t, p.File, int64(len(raw)/2))
	forget(t)
	if _, err := os.ReadFile(filepath.Join(dir, "usr/bin/w")); !errors.Is(err, unix.EIO) {
		t.Fatalf("read an altered file: %v", err)
	}
	flip(t, p.File, int64(len(raw)/2))
	found, err := s.FindDamage()
	if err != nil || len(found) != 1 || !found[0].Whole {
		t.Errorf("found %+v, %v", found, err)
	}
	if _, err := os.ReadFile(filepath.Join(dir, "usr/bin/w")); err != nil {
		t.Errorf("mounted again: %v", err)
	}
}

// A pack whose mount cannot be renewed is told all the same, so that what runs from it
// starts again.
func TestKernelMountStays(t *testing.T) {
	s, _, raw := kernelStore(t)
	p, err := s.Find("e")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("/good.erofs")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir := s.mountDir(p) // a second mount below keeps the folder from being removed
	if err := errors.Join(os.Mkdir(dir, 0o755), mountRead(f, dir), s.mountFile(p, true, dir)); err != nil {
		t.Fatal(err)
	}
	flip(t, p.File, int64(len(raw)/2))
	forget(t)
	if _, err := os.ReadFile(filepath.Join(dir, "usr/bin/w")); !errors.Is(err, unix.EIO) {
		t.Fatalf("read an altered file: %v", err)
	}
	flip(t, p.File, int64(len(raw)/2))
	found, err := s.FindDamage()
	if !errors.Is(err, unix.EBUSY) || len(found) != 1 || !found[0].Whole {
		t.Errorf("found %+v, %v", found, err)
	}
}

// A damaged pack that runs is found once on a full disk, too, which takes no record of it.
func TestKernelDamageOnFullDisk(t *testing.T) {
	guesttest.NeedGuest(t)
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=16m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unmount(disk) })
	s, c, raw := kernelStore(t)
	s, err := OpenStore(filepath.Join(disk, "packs"), s.mounts, c.pool)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.install(s, raw); err != nil {
		t.Fatal(err)
	}
	p, dir, err := s.Mount("e")
	if err != nil {
		t.Fatal(err)
	}
	flip(t, p.File, int64(len(raw)/2))
	forget(t)
	if _, err := os.ReadFile(filepath.Join(dir, "usr/bin/w")); !errors.Is(err, unix.EIO) {
		t.Fatalf("read an altered file: %v", err)
	}
	if err := os.WriteFile(filepath.Join(disk, "full"), make([]byte, 16<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	found, err := s.FindDamage()
	if !errors.Is(err, unix.ENOSPC) || len(found) != 1 || found[0].Whole {
		t.Errorf("found %+v, %v", found, err)
	}
	if found, err := s.FindDamage(); err != nil || len(found) != 0 {
		t.Errorf("found again: %+v, %v", found, err)
	}
	if err := errors.Join(os.Remove(filepath.Join(disk, "full")), s.Remove("e")); err != nil {
		t.Error(err)
	}
}

// What the first blocks or the hash tree of a file lack is noticed when it is mounted.
func TestKernelMountDamaged(t *testing.T) {
	for name, at := range map[string]func(raw []byte) int64{
		"superblock":         func([]byte) int64 { return superblock + 48 },
		"top of the tree":    func(raw []byte) int64 { return int64(mustTree(raw).Blocks)*release.BlockSize + 4 },
		"leaves of the tree": func(raw []byte) int64 { return int64(mustTree(raw).Blocks+1)*release.BlockSize + 4 },
	} {
		t.Run(name, func(t *testing.T) {
			s, c, raw := kernelStore(t)
			p, err := s.Find("e")
			if err != nil {
				t.Fatal(err)
			}
			flip(t, p.File, at(raw))
			forget(t)
			if _, _, err := s.Mount("e"); !errors.Is(err, ErrDamaged) {
				t.Errorf("mounted: %v", err)
			}
			if list, err := s.List(); err != nil || len(list) != 1 || list[0].Damaged.IsZero() {
				t.Errorf("list: %+v, %v", list, err)
			}
			noDevices(t)
			if _, err := c.install(s, raw); err != nil {
				t.Fatal(err)
			}
			if _, _, err := s.Mount("e"); err != nil {
				t.Errorf("installed again: %v", err)
			}
		})
	}
}

func mustTree(raw []byte) *release.Verity {
	v, err := readVerity(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		panic(err)
	}
	return v
}

// The next daemon takes the mount over; what a crash left before it was mounted goes,
// as does the mount of a pack that is no more.
func TestKernelNextDaemon(t *testing.T) {
	s, c, raw := kernelStore(t)
	_, dir, err := s.Mount("e")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("/good.erofs")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	loop, err := attachLoop(f)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(loop.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	v := mustTree(raw)
	device := fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	if _, err := linux.CreateMapping(s.mapping+"crashed", "verity", v.Table(device, v.Blocks), v.Sectors()); err != nil {
		t.Fatal(err)
	}
	if err := loop.Close(); err != nil {
		t.Fatal(err)
	}
	stray := filepath.Join(s.mounts, "inspect-1")
	if err := errors.Join(os.Mkdir(stray, 0o755), mountRead(f, stray)); err != nil {
		t.Fatal(err)
	}
	again, err := OpenStore(s.dir, s.mounts, c.pool)
	if err != nil {
		t.Fatal(err)
	}
	names, err := linux.Mappings()
	if err != nil || len(names) != 1 || !strings.Contains(names[0], filepath.Base(dir)) {
		t.Errorf("mappings: %q, %v, want that of the mount", names, err)
	}
	if _, err := os.Stat(stray); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a mount point of nothing stays: %v", err)
	}
	if _, at, err := again.Mount("e"); err != nil || at != dir {
		t.Errorf("mounted at %s, %v, want %s", at, err, dir)
	}
	if now, err := linux.Mappings(); err != nil || !slices.Equal(now, names) {
		t.Errorf("mappings: %q, %v, before %q", now, err, names)
	}
}

// The cost of mounting a pack, in instructions: what is checked block by block is not
// read before.
func TestKernelMountCost(t *testing.T) {
	s, _, raw := kernelStore(t)
	mount := func(f func() error) time.Duration {
		forget(t)
		began := time.Now()
		if err := f(); err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		p, err := s.Find("e")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.dropMount(s.mountDir(p)); err != nil {
			t.Fatal(err)
		}
		return took
	}
	p, err := s.Find("e")
	if err != nil {
		t.Fatal(err)
	}
	root := mount(func() error { return s.mountFile(p, true, s.mountDir(p)) })
	digest := mount(func() error { return s.mountFile(p, false, s.mountDir(p)) })
	t.Logf("mounting %d bytes: %d thousand instructions by the root hash, %d by the digest", len(raw), root.Microseconds()/8, digest.Microseconds()/8)
	if root > digest/4 {
		t.Errorf("mounting by the root hash took %v, by the digest %v", root, digest)
	}
}
