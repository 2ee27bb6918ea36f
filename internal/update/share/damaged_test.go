package share

import (
	"os"
	"path/filepath"
	"testing"
)

// Files that the node keeps and that its disk damaged are fetched again.
func TestDamagedOnDisk(t *testing.T) {
	flip := func(t *testing.T, file string) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text[len(text)/2] ^= 1
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	unreadable := func(t *testing.T, file string) { // like a bad sector: it opens, and each read fails
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(file, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s := newSite(t)
	for name, damage := range map[string]func(*testing.T, string){"flipped": flip, "unreadable": unreadable} {
		n, _ := s.seeded(nil)
		files, err := filepath.Glob(filepath.Join(n.cache.dir, "*"))
		if err != nil || len(files) < 4 {
			t.Fatal(files, err)
		}
		for _, file := range files {
			damage(t, file)
		}
		m := n.upgrade(n.open(true), nil)
		again := n.open(true)
		n.upgrade(again, nil) // keeps them again
		s.sent.Store(0)
		n.upgrade(again, nil)
		if sent := s.sent.Load(); sent != m.Packs[0].Size {
			t.Errorf("%s: once they are kept again, the publisher sent %d bytes, want %d of the pack alone", name, sent, m.Packs[0].Size)
		}
	}
}
