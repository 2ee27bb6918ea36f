package pack

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// damage alters a pack's file and has the store note it, as after a block that the
// kernel found corrupt.
func (s *Store) damage(t *testing.T, name string) {
	t.Helper()
	p, err := s.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, p.File, p.SizeBytes/2)
	if good, _ := whole(p); good {
		t.Fatal("an altered file has its digest")
	}
	s.mounting.Lock()
	defer s.mounting.Unlock()
	if err := s.markDamaged(p); err != nil {
		t.Fatal(err)
	}
}

// A damaged pack stays so for the next daemon, is mounted by none, and is good once it
// is installed again, whose mount then shows the good file.
func TestDamagedStays(t *testing.T) {
	s, c, _ := openTestStore(t)
	raw := makePack(t, runtime.GOARCH, strings.Repeat("good ", 9000))
	_, err := c.install(s, raw)
	skipUnmountable(t, err)
	if err != nil {
		t.Fatal(err)
	}
	_, dir, err := s.Mount("e")
	if err != nil {
		t.Fatal(err)
	}
	s.damage(t, "e")
	s = s.as(t, "")
	list, err := s.List()
	if err != nil || len(list) != 1 || list[0].Damaged.IsZero() {
		t.Fatalf("list: %+v, %v", list, err)
	}
	if _, _, err := s.Mount("e"); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "install it again, with oscine pack install FILE") {
		t.Errorf("mounted: %v", err)
	}
	if p, err := c.install(s, raw); err != nil || !p.Damaged.IsZero() {
		t.Fatalf("installed again: %+v, %v", p, err)
	}
	if mounted(dir) {
		t.Error("the damaged file is mounted still")
	}
	if _, _, err := s.Mount("e"); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "usr/bin/w")); err != nil || !strings.HasPrefix(string(got), "good") {
		t.Errorf("read %.20q, %v", got, err)
	}
	if err := s.Remove("e"); err != nil {
		t.Error(err)
	}
}

// smallDisk puts a store on a disk of its own, which full fills.
func smallDisk(t *testing.T, s *Store) (full func()) {
	t.Helper()
	if err := unix.Mount("tmpfs", s.dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mounting a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unmount(s.dir); err != nil {
			t.Error(err)
		}
	})
	return func() {
		t.Helper()
		err := os.WriteFile(filepath.Join(s.dir, "full"), make([]byte, 2<<20), 0o600)
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("filling the disk: %v", err)
		}
	}
}

// A damaged pack counts as one on a full disk, too, which takes no record of it.
func TestDamagedOnFullDisk(t *testing.T) {
	s, c, _ := openTestStore(t)
	full := smallDisk(t, s)
	raw := makePack(t, runtime.GOARCH, "good")
	_, err := c.install(s, raw)
	skipUnmountable(t, err)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Find("e")
	if err != nil {
		t.Fatal(err)
	}
	full()
	told := 0
	s.Damaged = func() { told++ }
	flip(t, p.File, p.SizeBytes/2)
	if _, _, err := s.Mount("e"); !errors.Is(err, ErrDamaged) || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("mounted: %v, want what is damaged and that the disk is full", err)
	}
	if list, err := s.List(); err != nil || len(list) != 1 || list[0].Damaged.IsZero() || told != 1 || !s.damaged(p.Digest) {
		t.Errorf("list: %+v, %v, told %d times", list, err, told)
	}
	remove(t, filepath.Join(s.dir, "full"))
	if p, err := c.install(s, raw); err != nil || !p.Damaged.IsZero() || s.damaged(p.Digest) {
		t.Errorf("installed again: %+v, %v", p, err)
	}
	if _, _, err := s.Mount("e"); err != nil {
		t.Error(err)
	}
	if err := s.Remove("e"); err != nil {
		t.Error(err)
	}
}

// A file that ends too early, or that the disk cannot read, is damaged; what fails
// otherwise is not.
func TestUnreadable(t *testing.T) {
	s, c, _ := openTestStore(t)
	raw := makePack(t, runtime.GOARCH, "good")
	p, err := c.install(s, raw)
	skipUnmountable(t, err)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(p.File, 4096); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Mount("e"); !errors.Is(err, ErrDamaged) {
		t.Errorf("mounted a file that was cut: %v", err)
	}
	if err := s.Remove("e"); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{&os.PathError{Op: "read", Err: unix.EIO}, true},
		{io.ErrUnexpectedEOF, true},
		{unix.ENOMEM, false},
		{fmt.Errorf("%w: not JSON", ErrNotPack), false},
	} {
		if got := unreadable(c.err); errors.Is(got, ErrDamaged) != c.want || !errors.Is(got, c.err) {
			t.Errorf("%v became %v", c.err, got)
		}
	}
}

// One that came with a release is staged again, though a record says that it is here,
// and stays good when the machine goes back.
func TestDamagedIsStagedAgain(t *testing.T) {
	s, _, _ := openTestStore(t)
	raw := makePack(t, runtime.GOARCH, strings.Repeat("good ", 9000))
	s = s.as(t, "1.1", raw)
	fetched := 0
	stage := func() {
		t.Helper()
		err := s.Stage(t.Context(), "1.1", digestOf(raw), func(have io.Reader, w io.Writer) error {
			fetched++
			return sending(raw)(have, w)
		})
		skipUnmountable(t, err)
		if err != nil {
			t.Fatal(err)
		}
	}
	stage()
	if _, err := s.Settle(); err != nil {
		t.Fatal(err)
	}
	s.damage(t, "e")
	if p, err := s.Find("e"); err != nil || !strings.Contains(p.Repair(), "spec.update.source") {
		t.Errorf("found %+v, %v", p, err)
	}
	stage()
	stage()
	if fetched != 2 {
		t.Errorf("fetched %d times, want at first and once again", fetched)
	}
	s.holds(t, raw, 3)
	if _, err := s.Settle(); err != nil {
		t.Fatal(err)
	}
	s.as(t, "1.0", raw).holds(t, raw, 2)
}

// A pack whose file is gone is damaged, mounted or not.
func TestFileIsGone(t *testing.T) {
	s, c, _ := openTestStore(t)
	raw := makePack(t, runtime.GOARCH, "program")
	for _, mountFirst := range []bool{false, true} {
		p, err := c.install(s, raw)
		skipUnmountable(t, err)
		if err != nil {
			t.Fatal(err)
		}
		if mountFirst {
			if _, _, err := s.Mount("e"); err != nil {
				t.Fatal(err)
			}
		}
		told := 0
		s.Damaged = func() { told++ }
		if err := os.Remove(p.File); err != nil {
			t.Fatal(err)
		}
		if !mountFirst {
			if _, _, err := s.Mount("e"); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "install it again") {
				t.Errorf("mounted: %v", err)
			}
		} else if found, err := s.FindDamage(); err != nil || len(found) != 1 || found[0].Whole {
			t.Errorf("found %+v, %v", found, err)
		}
		if found, err := s.FindDamage(); err != nil || len(found) != 0 || told != 1 {
			t.Errorf("found again %+v, %v; told %d times", found, err, told)
		}
		if list, err := s.List(); err != nil || len(list) != 1 || list[0].Damaged.IsZero() {
			t.Errorf("list: %+v, %v", list, err)
		}
	}
	if _, err := c.install(s, raw); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Mount("e"); err != nil {
		t.Error(err)
	}
	if err := s.Remove("e"); err != nil {
		t.Error(err)
	}
}
