package pack

import (
	"errors"
	"fmt"
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

// unverified is Info.Unverified of a pack with that root hash.
func (s *Store) unverified(verity string) string {
	if verity == "" {
		return "it was made without a hash tree: build or fetch a newer one"
	}
	if gap := s.gap.Load(); gap != nil {
		return fmt.Sprintf("%v (see oscine doctor)", *gap)
	}
	return ""
}

// Reread is a mounted pack of which a block was read that does not have its hash.
type Reread struct {
	Info
	Whole bool // its file is whole, and mounted again: it was only read wrong, or replaced meanwhile
}

// FindDamage looks at what the kernel read from the packs that are mounted through
// dm-verity, and returns those of which a block did not have its hash. Each is
// returned once. One whose file does not have its digest is damaged from then on.
func (s *Store) FindDamage() ([]Reread, error) {
	s.mounting.Lock()
	defer s.mounting.Unlock()
	packs, err := s.List()
	if err != nil {
		return nil, err
	}
	var found []Reread
	for i := range packs {
		p := &packs[i]
		dir := s.mountDir(p)
		if !p.Damaged.IsZero() || !mounted(dir) || !mountedCorrupt(dir) {
			continue
		}
		if whole(p) {
			if err := s.dropMount(dir); err != nil {
				return found, err
			}
			if _, err := s.mountChecked(p, false, dir); err != nil {
				return found, fmt.Errorf("mount the pack %s again: %w", p.Name, err)
			}
			found = append(found, Reread{*p, true})
			continue
		}
		if err := s.markDamaged(p); err != nil {
			return found, err
		}
		found = append(found, Reread{*p, false})
	}
	return found, nil
}

// whole reports whether a pack's file has its digest on the disk, whatever is in memory
// of it.
func whole(p *Info) bool {
	f, err := os.Open(p.File)
	if err != nil {
		return false
	}
	defer f.Close()
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) // else it is what was written that is read
	got, err := sumOf(f)
	return err == nil && got == p.Digest
}

// markDamaged notes in a pack's records that its file is damaged. The caller holds
// s.mounting.
func (s *Store) markDamaged(p *Info) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	records, err := s.records()
	if err != nil {
		return err
	}
	p.Damaged = time.Now().UTC().Truncate(time.Second)
	for file, rec := range records {
		if rec.Digest == p.Digest {
			rec.Damaged = p.Damaged
			if err := rec.write(filepath.Join(s.dir, file)); err != nil {
				return fmt.Errorf("note that the pack %s is damaged: %w", p.Name, err)
			}
		}
	}
	if s.Damaged != nil {
		s.Damaged()
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
