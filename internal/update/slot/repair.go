package slot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/uki"
)

// Copies are what the ESP is repaired from.
type Copies struct {
	// Dir is a folder outside the ESP with copies of the kernel images of versions
	// that were found good; it is made. "" keeps none.
	Dir string
	// Files are what else the ESP holds, by their paths there.
	Files map[string][]byte
}

// repair is one file of the ESP that is to be written again.
type repair struct {
	path    string
	content []byte
}

// Repair compares the ESP with the copies, and writes again what is missing or
// damaged: the boot loader and its configuration, and the kernel images of good
// versions whose root is in a slot. It returns the paths of what it wrote. A boot
// loader of another version that is whole stays. It keeps copies of the good kernel
// images that it finds. A file that cannot be read is damaged, and one that cannot be
// repaired keeps no other from it. No upgrade may be under way.
func (s *Slots) Repair(ctx context.Context, c Copies) (repaired []string, err error) {
	var due []repair
	err = s.disk.ESP(func(esp ESP) error {
		images, err := s.damagedImages(ctx, esp, c.Dir)
		due = append(damagedFiles(esp, c.Files), images...)
		return err
	})
	if err != nil {
		err = fmt.Errorf("look for damage on the ESP: %w", err)
	}
	for _, r := range due {
		if failed := s.put(r); failed != nil {
			err = errors.Join(err, fmt.Errorf("repair %s on the ESP: %w", r.path, failed))
			continue
		}
		repaired = append(repaired, r.path)
	}
	return repaired, err
}

// damagedFiles are those beside kernel images.
func damagedFiles(esp ESP, files map[string][]byte) (due []repair) {
	for name, want := range files {
		got, err := readAll(esp, name)
		if err == nil && (bytes.Equal(got, want) || strings.EqualFold(path.Ext(name), ".efi") && signed(got)) {
			continue
		}
		due = append(due, repair{name, want})
	}
	return due
}

// signed reports that a program carries a signature that fits all of it.
func signed(program []byte) bool {
	_, err := uki.Signer(program)
	return err == nil
}

// whole reports that a file is a kernel image without damage, as far as it can tell:
// one that is not signed is taken at its word.
func whole(image []byte) bool {
	if _, err := uki.Read(image); err != nil {
		return false
	}
	_, err := uki.Signer(image)
	return err == nil || errors.Is(err, uki.ErrUnsigned)
}

func isUnsigned(image []byte) bool {
	_, err := uki.Signer(image)
	return errors.Is(err, uki.ErrUnsigned)
}

// damagedImages are the kernel images that are to be written again. It brings the
// copies up to date.
func (s *Slots) damagedImages(ctx context.Context, esp ESP, dir string) (due []repair, err error) {
	started, ok := release.ParseEntry(path.Base(s.facts().Image))
	if !ok || dir == "" {
		return nil, nil // its kernel did not come from the ESP
	}
	entries, err := readEntries(esp)
	if err != nil {
		return nil, err
	}
	failed := keepCopies(esp, entries, dir)
	names, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		failed = errors.Join(failed, err)
	}
	for _, f := range names {
		file := filepath.Join(dir, f.Name())
		name, ok := release.ParseEntry(f.Name())
		if !ok {
			continue // of a write that power ended
		}
		image, err := os.ReadFile(file)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		target, wanted, err := s.missing(ctx, esp, entries, name, image, started)
		switch {
		case err != nil:
		case !wanted:
			err = durable.Remove(file)
		case target != "":
			due = append(due, repair{target, image})
		}
		failed = errors.Join(failed, err)
	}
	return due, failed
}

// keepCopies copies the good kernel images of the ESP that have no copy. A copy
// that differs from an image without damage is replaced.
func keepCopies(esp ESP, entries []entry, dir string) (failed error) {
	for _, e := range entries {
		if e.bad != nil || e.staged || e.name.Counted {
			continue
		}
		image, err := readAll(esp, e.path)
		if err != nil {
			continue // it is damaged
		}
		file := filepath.Join(dir, e.name.File())
		old, err := os.ReadFile(file)
		if err == nil && (bytes.Equal(old, image) || whole(old) && isUnsigned(image)) || !whole(image) {
			continue
		}
		err = durable.MkdirAll(dir, 0o700)
		if err == nil {
			err = durable.WriteFile(file, image, 0o600)
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("keep a copy of %s: %w", e.path, err))
		}
	}
	return failed
}

// missing says where on the ESP a copy is to be written, "" for nowhere, and
// whether the copy is worth keeping.
func (s *Slots) missing(ctx context.Context, esp ESP, entries []entry, name release.Entry, image []byte, started release.Entry) (target string, wanted bool, err error) {
	if !whole(image) {
		return "", false, nil
	}
	target = path.Join(release.ImageFolder, name.Good().File())
	for _, e := range entries {
		if e.staged || e.name.Title != name.Title {
			continue
		}
		if e.name.Counted {
			return "", !e.name.Bad(), nil // it was given up since, or is on trial
		}
		there, err := readAll(esp, e.path)
		if err == nil && (bytes.Equal(there, image) || whole(there)) {
			return "", true, nil
		}
		target = e.path
	}
	if name.Title == started.Title {
		return target, true, nil
	}
	u, err := uki.Read(image)
	if err != nil {
		return "", false, nil
	}
	v, err := u.Verity()
	if err != nil {
		return "", false, nil
	}
	err = s.CheckRoot(ctx, v)
	if errors.Is(err, ErrRoot) {
		return "", false, nil // the other slot holds something else by now
	}
	return target, err == nil, err
}

// put writes a file of the ESP: whole under another name first, and read back from
// the disk before it replaces what is there.
func (s *Slots) put(r repair) error {
	hidden := r.path + stagedSuffix
	err := s.disk.ESP(func(esp ESP) error {
		free, err := esp.Free()
		if err == nil && free < int64(len(r.content))+espReserve {
			err = fmt.Errorf("%w: it needs %d bytes, the ESP has %d: remove foreign files from it", ErrNoRoom, len(r.content), free)
		}
		if err != nil {
			return err
		}
		if err := esp.Create(hidden, bytes.NewReader(r.content), int64(len(r.content))); err != nil {
			return err
		}
		return esp.Flush()
	})
	if err != nil {
		return err
	}
	return s.disk.ESP(func(esp ESP) error {
		if err := readBack(esp, hidden, r.content); err != nil {
			return err
		}
		return esp.Replace(hidden, path.Base(r.path))
	})
}
