package pack

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/durable"
)

// kept ends the name of the record of a version that another has taken the place of, while
// objects run on it still: they go to the other one each by itself. Before it come the
// pack's name and the beginning of its digest.
const kept = ".kept"

func (s *Store) keptFile(rec *record) string {
	return filepath.Join(s.dir, rec.Manifest.Name+"."+rec.hex()[:16]+kept)
}

// keepFor writes the record of a version that another takes the place of, for those that
// run on it. The caller holds s.mu.
func (s *Store) keepFor(users []string, rec *record, next string) error {
	if len(users) == 0 {
		return nil
	}
	old := *rec
	old.Next, old.Stays = next, map[string]string{}
	for _, user := range users {
		old.Stays[user] = ""
	}
	return old.write(s.keptFile(&old))
}

// redirect has those that run on older versions of a pack go to its newest, also where
// they could not go to another one before. The caller holds s.mu.
func (s *Store) redirect(name, next string) error {
	records, err := s.records()
	if err != nil {
		return err
	}
	for file, rec := range records {
		if !strings.HasSuffix(file, kept) || rec.Manifest.Name != name {
			continue
		}
		rec.Next = next
		for user := range rec.Stays {
			rec.Stays[user] = ""
		}
		if err := rec.write(s.keptFile(rec)); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes older versions on which nothing runs, and those whose place is taken by
// neither the installed nor the coming version of their name. The caller holds s.mu.
func (s *Store) sweep() error {
	records, err := s.records()
	if err != nil {
		return err
	}
	var errs []error
	for file, rec := range records {
		if !strings.HasSuffix(file, kept) {
			continue
		}
		installed, coming := records[rec.Manifest.Name+".json"], records[rec.Manifest.Name+staged]
		follows := installed != nil && installed.Digest == rec.Next || coming != nil && coming.Digest == rec.Next
		if follows && len(rec.Stays) > 0 && (installed == nil || installed.Digest != rec.Digest) {
			continue
		}
		errs = append(errs, durable.Remove(s.keptFile(rec)), s.dropFile(s.info(rec)))
	}
	return errors.Join(errs...)
}

// All returns the installed packs as List does, each with the older versions behind it on
// which objects run still.
func (s *Store) All() ([]Info, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.all()
}

func (s *Store) all() ([]Info, error) {
	packs, err := s.list()
	if err != nil {
		return nil, err
	}
	records, err := s.records()
	if err != nil {
		return nil, err
	}
	for file, rec := range records {
		if strings.HasSuffix(file, kept) {
			packs = append(packs, *s.info(rec))
		}
	}
	slices.SortStableFunc(packs, func(a, b Info) int {
		if a.Name != b.Name {
			return strings.Compare(a.Name, b.Name)
		}
		return strings.Compare(a.Next, b.Next) // the installed one has none
	})
	return packs, nil
}

// keptFor replaces packs by the older versions on which a user stays.
func keptFor(user string, all []Info) (packs []Info) {
	for _, p := range all {
		if p.Next != "" {
			continue
		}
		for _, old := range all {
			if _, ok := old.Stays[user]; ok && old.Name == p.Name && old.Next == p.Digest && old.Damaged.IsZero() {
				p = old
			}
		}
		packs = append(packs, p)
	}
	return packs
}

// Successor returns the version that has taken the place of the one with a digest, on which
// a user runs, and why the user could not go there; "" where that was not tried yet. It
// returns nil where none has.
func (s *Store) Successor(user, digest string) (next *Info, why string) {
	all, err := s.All()
	if err != nil {
		return nil, ""
	}
	for _, old := range all {
		why, ok := old.Stays[user]
		if !ok || old.Digest != digest {
			continue
		}
		for i := range all {
			if all[i].Next == "" && all[i].Digest == old.Next {
				return &all[i], why
			}
		}
	}
	return nil, ""
}

// Stay notes why a user could not go from the version with a digest to the one that has
// taken its place: it stays until yet another one comes, or the same is installed again.
func (s *Store) Stay(user, digest, why string) error {
	return s.edit(func(rec *record) bool {
		if before, ok := rec.Stays[user]; !ok || rec.Digest != digest || before == why {
			return false
		}
		rec.Stays[user] = why
		return true
	})
}

// Moved notes that a user runs on the version with a digest, and no older one is kept for
// it; "" is for one that runs no more.
func (s *Store) Moved(user, digest string) error {
	return s.edit(func(rec *record) bool {
		if _, ok := rec.Stays[user]; !ok || rec.Digest == digest {
			return false
		}
		delete(rec.Stays, user)
		return true
	})
}

// edit changes the records of older versions, and removes those that nobody needs.
func (s *Store) edit(change func(*record) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	records, err := s.records()
	if err != nil {
		return err
	}
	changed := false
	for file, rec := range records {
		if !strings.HasSuffix(file, kept) || !change(rec) {
			continue
		}
		changed = true
		if err := rec.write(s.keptFile(rec)); err != nil {
			return err
		}
	}
	if !changed {
		return nil
	}
	return s.sweep()
}
