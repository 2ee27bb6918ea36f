package debian

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"oscine.dev/oscine/internal/durable"
)

// Tree is an unpacked set.
type Tree struct {
	Dir      string    // holds usr/, boot/, …; to be read only
	Packages []Package // what it was unpacked from, in the order of the lock or of the fallback
}

// Tree returns the unpacked set of that name and architecture, from the cache
// or made now. When the mirror no longer has a pinned version and the cache
// does not hold it either, the newest of that package is taken and a line says
// so.
func (s *Source) Tree(ctx context.Context, name, arch string) (*Tree, error) {
	set, err := s.lock.Set(name, arch)
	if err != nil {
		return nil, err
	}
	if newer, ok := s.replacement(set); ok {
		set = newer
	}
	tree, err := s.unpacked(ctx, set)
	var missing *MissingError
	if errors.As(err, &missing) {
		newer, indexErr := s.newest(ctx, set, missing.Packages)
		if indexErr == nil {
			indexErr = s.remember(set, newer)
		}
		if indexErr != nil {
			return nil, errors.Join(err, indexErr)
		}
		tree, err = s.unpacked(ctx, newer)
	}
	if err != nil {
		return nil, fmt.Errorf("packages %s of %s: %w", name, arch, err)
	}
	return tree, nil
}

// Cached returns a set that an earlier run has unpacked; it fetches nothing.
func (s *Source) Cached(name, arch string) (*Tree, error) {
	set, err := s.lock.Set(name, arch)
	if err != nil {
		return nil, err
	}
	if newer, ok := s.replacement(set); ok {
		set = newer
	}
	dir := s.dir(set)
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("packages %s of %s are not in the cache: %w", name, arch, err)
	}
	return &Tree{Dir: dir, Packages: set.Packages}, nil
}

// dir is where a set is unpacked.
func (s *Source) dir(set Set) string {
	return filepath.Join(s.cache, "trees", set.Name+"-"+set.Arch+"-"+set.digest())
}

// remember keeps which set took the place of one that the mirror has dropped,
// so that the mirror's index is read once.
func (s *Source) remember(set, newer Set) error {
	text, err := json.Marshal(Lock{Sets: []Set{newer}})
	if err != nil {
		return err
	}
	file := s.replaced(set)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return durable.WriteFile(file, text, 0o644)
}

func (s *Source) replaced(set Set) string {
	return filepath.Join(s.cache, "replaced", set.Name+"-"+set.Arch+"-"+set.digest()+".json")
}

// replacement is what [Source.remember] kept, if it is still usable.
func (s *Source) replacement(set Set) (Set, bool) {
	text, err := os.ReadFile(s.replaced(set))
	if err != nil {
		return Set{}, false
	}
	lock, err := ParseLock(text)
	if err != nil || len(lock.Sets) != 1 {
		return Set{}, false
	}
	fmt.Fprintf(s.log, "packages %s of %s: newer ones take the place of those pinned (%s)\n", set.Name, set.Arch, s.replaced(set))
	return lock.Sets[0], true
}

func (s *Source) unpacked(ctx context.Context, set Set) (*Tree, error) {
	tree := &Tree{Dir: s.dir(set), Packages: set.Packages}
	if _, err := os.Stat(tree.Dir); err == nil {
		return tree, nil
	}
	files, err := s.Fetch(ctx, set.Packages...)
	if err != nil {
		return nil, err
	}
	release, err := lockFile(ctx, filepath.Join(s.cache, "unpack.lock"))
	if err != nil {
		return nil, err
	}
	defer release()
	if _, err := os.Stat(tree.Dir); err == nil {
		return tree, nil
	}
	fmt.Fprintf(s.log, "unpack %s for %s\n", set.Name, set.Arch)
	return tree, durable.MakeTree(tree.Dir, func(empty string) error {
		for i, file := range files {
			if err := verify(file, set.Packages[i]); err != nil {
				return errors.Join(err, os.Remove(file))
			}
			if err := Unpack(ctx, file, empty, useful); err != nil {
				return err
			}
		}
		return nil
	})
}

// digest identifies the content of a set.
func (set Set) digest() string {
	sum := sha256.New()
	for _, p := range set.Packages {
		fmt.Fprintln(sum, p.Name, p.SHA256)
	}
	return hex.EncodeToString(sum.Sum(nil))[:16]
}

// useful drops what nothing in Oscine reads.
func useful(name string) bool {
	for _, dir := range []string{"usr/share/man/", "usr/share/locale/", "usr/share/info/", "usr/share/lintian/", "usr/share/bash-completion/", "usr/share/bug/"} {
		if strings.HasPrefix(name, dir) {
			return false
		}
	}
	return !strings.HasPrefix(name, "usr/share/doc/") || strings.HasSuffix(name, "/copyright")
}
