package pack

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Mounting a pack reads all of it: listing does not wait for it.
func TestListWaitsForNoMount(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore(filepath.Join(dir, "packs"), filepath.Join(dir, "mounts"), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.mounting.Lock()
	defer s.mounting.Unlock()
	listed := make(chan error, 1)
	go func() {
		_, err := s.List()
		_, missing := s.Find("onnxruntime")
		if !errors.Is(missing, ErrNotInstalled) {
			err = errors.Join(err, missing)
		}
		listed <- err
	}()
	select {
	case err := <-listed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the list waits for a mount")
	}
}

// A stop between any two steps of an installation or a removal leaves one version
// of a pack or none, and nothing beside it.
func TestStopBetweenSteps(t *testing.T) {
	var manifest Manifest
	if err := json.Unmarshal([]byte(manifestText("amd64")), &manifest); err != nil {
		t.Fatal(err)
	}
	rec := func(version string) *record {
		return &record{Digest: "sha256:" + strings.Repeat(version, 64), Installed: time.Now(), Manifest: manifest}
	}
	fresh := func() *Store {
		dir := t.TempDir()
		s, err := OpenStore(filepath.Join(dir, "packs"), filepath.Join(dir, "mounts"), nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	install := func(s *Store, version string) {
		t.Helper()
		tmp := filepath.Join(s.dir, "new-1")
		if err := os.WriteFile(tmp, []byte(version), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.commit(tmp, rec(version)); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		left func(s *Store)
		want string // version
	}{
		"installed":          {func(*Store) {}, "b"},
		"before its name":    {func(s *Store) { write(t, filepath.Join(s.dir, "new-2"), "c") }, "b"},
		"before its record":  {func(s *Store) { write(t, s.file(strings.Repeat("c", 64)), "c") }, "b"},
		"in its record":      {func(s *Store) { write(t, filepath.Join(s.dir, ".e.json.1"), "{") }, "b"},
		"before the old":     {func(s *Store) { write(t, s.file(strings.Repeat("a", 64)), "a") }, "b"},
		"record removed":     {func(s *Store) { remove(t, s.recordFile("e")) }, ""},
		"a record by digest": {func(s *Store) { write(t, filepath.Join(s.dir, strings.Repeat("a", 64)+".json"), "{}") }, "b"},
	} {
		t.Run(name, func(t *testing.T) {
			s := fresh()
			install(s, "a")
			install(s, "b")
			c.left(s)
			again, err := OpenStore(s.dir, s.mounts, nil)
			if err != nil {
				t.Fatal(err)
			}
			list, err := again.List()
			if err != nil {
				t.Fatal(err)
			}
			want := 0
			if c.want != "" {
				want = 1
			}
			files, err := os.ReadDir(s.dir)
			if err != nil || len(list) != want || len(files) != 2*want {
				t.Fatalf("%v, listed %v, there are %v", err, list, files)
			}
			if want == 1 {
				if got, err := os.ReadFile(list[0].File); err != nil || string(got) != c.want || list[0].Digest != rec(c.want).Digest {
					t.Errorf("the pack is %q, %v", got, err)
				}
			}
		})
	}
}

// A mount point that cannot be cleared away keeps no node from starting.
func TestOpenStoreBesideMounts(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "mounts", "0123"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "mounts", "0123", "file"), "")
	s, err := OpenStore(filepath.Join(dir, "packs"), filepath.Join(dir, "mounts"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.Uncleared == nil || !strings.Contains(s.Uncleared.Error(), "0123") {
		t.Errorf("got %v, want what stays", s.Uncleared)
	}
	if s, err = OpenStore(filepath.Join(dir, "packs"), filepath.Join(dir, "other"), nil); err != nil || s.Uncleared != nil {
		t.Errorf("got %v, %v", err, s.Uncleared)
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}
