package pack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/release"
)

// Mount mounts the pack of that name (or engine, or digest) read-only, unless it is mounted already,
// and returns it with the mount's folder. It is mounted through dm-verity, if it has a
// hash tree and this machine can: then the kernel checks each block that is read against
// the root hash that was signed. Else, and where only the digest was signed, the whole
// file is read and its digest compared first. ErrUntrusted and ErrDamaged mean that these
// don't hold; a pack that was found damaged stays so until it is installed again. The
// manifest that is returned comes from the file, not from the record beside it.
func (s *Store) Mount(name string) (*Info, string, error) {
	s.mounting.Lock()
	defer s.mounting.Unlock()
	p, err := s.Find(name)
	if err != nil {
		return nil, "", err
	}
	root, err := s.authentic(p.Digest, p.Verity, p.Signature, p.Release)
	if err != nil {
		return nil, "", fmt.Errorf("mount the pack %s: %w", p.Name, err)
	}
	if !p.Damaged.IsZero() {
		return nil, "", fmt.Errorf("%w: %s: %s", ErrDamaged, p.Name, p.Repair())
	}
	dir := s.mountDir(p)
	manifest, err := s.mountChecked(p, root, dir)
	if errors.Is(err, ErrDamaged) {
		return nil, "", errors.Join(fmt.Errorf("mount the pack %s: %w: %s", p.Name, err, p.Repair()), s.markDamaged(p))
	}
	if err != nil {
		return nil, "", fmt.Errorf("mount the pack %s: %w", p.Name, err)
	}
	p.Manifest = *manifest
	return p, dir, nil
}

// mountChecked mounts a pack unless it is mounted already, and reads its manifest. The
// pack's root hash is trusted where root says so.
func (s *Store) mountChecked(p *Info, root bool, dir string) (*Manifest, error) {
	if !mounted(dir) {
		if err := s.mountFile(p, root, dir); err != nil {
			return nil, err
		}
	}
	manifest, err := Read(dir)
	switch {
	case err != nil && mountedCorrupt(dir):
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	case err != nil:
		return nil, unreadable(err)
	case manifest.Name != p.Name:
		return nil, fmt.Errorf("%w: its file holds the pack %s", ErrDamaged, manifest.Name)
	}
	return manifest, nil
}

func (s *Store) mountFile(p *Info, root bool, dir string) error {
	f, err := os.Open(p.File)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return unreadable(err)
	}
	defer f.Close()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	mapping := s.mapping + filepath.Base(dir) + "-"
	if root {
		v, err := release.ParseVerity(p.Verity)
		if err != nil {
			return err
		}
		if err = mountVerity(f, &v, dir, mapping); !s.lacksVerity(err) {
			return err
		}
	}
	got, err := sumOf(f)
	if err != nil {
		return unreadable(err)
	}
	if got != p.Digest {
		return fmt.Errorf("%w: it has the digest %s instead of %s", ErrDamaged, got, p.Digest)
	}
	if v, err := readVerity(f, p.SizeBytes); !root && err == nil && v != nil {
		if err = mountVerity(f, v, dir, mapping); !s.lacksVerity(err) {
			return err
		}
	}
	return mountRead(f, dir)
}

// lacksVerity notes why packs are not mounted through dm-verity, or that they are.
func (s *Store) lacksVerity(err error) bool {
	if errors.Is(err, errNoVerity) {
		s.gap.Store(&err)
		return true
	}
	s.gap.Store(nil)
	return false
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

func (s *Store) mountDir(p *Info) string {
	return filepath.Join(s.mounts, strings.TrimPrefix(p.Digest, "sha256:")[:16])
}

// clearMounts takes away the mappings that a crash left unmounted, and the mounts of what
// is no pack any more, and notes in s.Uncleared those that stay, and whether there is a
// device mapper at all.
func (s *Store) clearMounts() error {
	names, err := linux.Mappings()
	if err != nil {
		s.lacksVerity(fmt.Errorf("%w: %w", errNoVerity, err))
	}
	var left []error
	for _, name := range names {
		if strings.HasPrefix(name, s.mapping) {
			if err := linux.RemoveMapping(name); err != nil && !errors.Is(err, unix.ENXIO) {
				left = append(left, err)
			}
		}
	}
	records, err := s.records()
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, rec := range records {
		keep[s.mountDir(s.info(rec))] = true
	}
	entries, err := os.ReadDir(s.mounts)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if dir := filepath.Join(s.mounts, e.Name()); !keep[dir] {
			left = append(left, s.dropMount(dir))
		}
	}
	s.Uncleared = errors.Join(left...)
	return nil
}

// dropMount removes a mount point with what is mounted there; what runs from it keeps
// it.
func (s *Store) dropMount(dir string) error {
	if mounted(dir) {
		if err := unmount(dir); err != nil {
			return err
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
