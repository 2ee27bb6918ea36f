package pack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Repair says how a damaged pack is made good.
func (p *Info) Repair() string {
	switch {
	case p.Source != "":
		return "the node fetches it again; or do it now with oscine pack pull " + p.Source
	case p.Release != "":
		return "the node fetches it again from spec.update.source of its Machine; or install it with oscine pack install FILE"
	}
	return "install it again, with oscine pack install FILE or oscine pack pull REFERENCE"
}

// Reread is a mounted pack of which a block was read that does not have its hash.
type Reread struct {
	Info
	Whole bool // its file is whole, and mounted again: it was only read wrong, or replaced meanwhile
}

// FindDamage looks at what the kernel read from the packs that are mounted through
// dm-verity, and returns those of which a block did not have its hash, and those whose
// file is gone. Each is returned once. One whose file does not have its digest is damaged from then on. An
// error keeps none of the others from being looked at.
func (s *Store) FindDamage() ([]Reread, error) {
	packs, err := s.All()
	if err != nil {
		return nil, err
	}
	var found []Reread
	var errs []error
	for i := range packs {
		if p := &packs[i]; s.wrong(p) {
			good, file := whole(p) // which takes long: others mount meanwhile
			r, err := s.judge(p, good, file)
			if r != nil {
				found = append(found, *r)
			}
			errs = append(errs, err)
		}
	}
	return found, errors.Join(errs...)
}

// wrong reports whether the file of a pack is gone, or a block was read of a mounted one
// that does not have its hash.
func (s *Store) wrong(p *Info) bool {
	if !p.Damaged.IsZero() {
		return false
	}
	if _, err := os.Stat(p.File); errors.Is(err, fs.ErrNotExist) {
		return true
	}
	dir := s.mountDir(p)
	return mounted(dir) && mountedCorrupt(dir)
}

// judge mounts a pack again whose file was good when it was read, and marks it damaged
// where it was not. It returns nil if the pack or its file is another by now.
func (s *Store) judge(p *Info, good bool, file os.FileInfo) (*Reread, error) {
	s.mounting.Lock()
	defer s.mounting.Unlock()
	p, err := s.Find(p.Digest)
	if errors.Is(err, ErrNotInstalled) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	now, err := os.Stat(p.File)
	if missing := err != nil && file == nil; !missing && !os.SameFile(file, now) || !s.wrong(p) {
		return nil, nil
	}
	if good {
		if err := s.remount(p); !errors.Is(err, ErrDamaged) {
			return &Reread{*p, true}, err
		}
	}
	err = s.markDamaged(p)
	return &Reread{*p, false}, err
}

// remount mounts a pack again whose mount shows what was read wrong. Where that fails,
// the next Mount tries.
func (s *Store) remount(p *Info) error {
	dir := s.mountDir(p)
	err := s.dropMount(dir)
	if err == nil {
		_, err = s.mountChecked(p, false, dir)
	}
	if err != nil {
		return fmt.Errorf("mount the pack %s again: %w", p.Name, err)
	}
	return nil
}

// whole reports whether a pack's file has its digest on the disk, whatever is in memory
// of it, and which file that is; nil where there is none.
func whole(p *Info) (bool, os.FileInfo) {
	f, err := os.Open(p.File)
	if err != nil {
		return false, nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, nil
	}
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) // else it is what was written that is read
	got, err := sumOf(f)
	return err == nil && got == p.Digest, info
}

// markDamaged notes that a pack's file is damaged: in memory, which a full disk cannot
// hinder, and in its records. The caller holds s.mounting.
func (s *Store) markDamaged(p *Info) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.Damaged = time.Now().UTC().Truncate(time.Second)
	s.broken[p.Digest] = p.Damaged
	if s.Damaged != nil {
		s.Damaged()
	}
	records, err := s.records()
	if err != nil {
		return err
	}
	for file, rec := range records {
		if rec.Digest == p.Digest {
			if err := rec.write(filepath.Join(s.dir, file)); err != nil {
				return fmt.Errorf("note that the pack %s is damaged: %w", p.Name, err)
			}
		}
	}
	return nil
}

// noteRepaired notes in the records of a digest that its file is good, and drops the
// mount that shows a damaged one. The caller holds s.mounting and s.mu.
func (s *Store) noteRepaired(digest string) error {
	records, err := s.records()
	if err != nil {
		return err
	}
	for file, rec := range records {
		if rec.Digest != digest || rec.Damaged.IsZero() {
			continue
		}
		rec.Damaged = time.Time{}
		if err := errors.Join(s.dropMount(s.mountDir(s.info(rec))), rec.write(filepath.Join(s.dir, file))); err != nil {
			return err
		}
	}
	delete(s.broken, digest)
	return nil
}

// damaged reports whether the pack of a digest was found damaged.
func (s *Store) damaged(digest string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	records, err := s.records()
	if err != nil {
		return false
	}
	for _, rec := range records {
		if rec.Digest == digest && !rec.Damaged.IsZero() {
			return true
		}
	}
	return false
}
