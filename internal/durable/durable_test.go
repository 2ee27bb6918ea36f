package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestWriteFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := MkdirAll(dir, 0o700); err != nil {
		t.Fatalf("a folder that is there: %v", err)
	}
	name := filepath.Join(dir, "key")
	for _, content := range []string{"one", "another"} {
		if err := WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		if string(got) != content || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if info, err := os.Stat(name); err != nil || info.Mode() != 0o600 {
		t.Errorf("got %v, %v", info, err)
	}
	if err := Rename(name, name+"2"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Remove(name + "2"); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(dir); len(left) != 0 || err != nil {
		t.Errorf("left in the folder: %v, %v", left, err)
	}
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "new"), filepath.Join(dir, "old")
	for _, name := range []string{from, to} {
		if err := os.WriteFile(name, []byte(filepath.Base(name)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Replace(from, to); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(to); err != nil || string(got) != "new" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := Replace(from, to); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	tree := filepath.Join(dir, "tree")
	if err := os.MkdirAll(filepath.Join(tree, "a"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := ReplaceTree(tree, filepath.Join(dir, "done")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "done", "a")); err != nil {
		t.Error(err)
	}
}

// A tree is there whole or not at all, and one that is there stays.
func TestMakeTree(t *testing.T) {
	above := filepath.Join(t.TempDir(), "trees")
	dir := filepath.Join(above, "a")
	with := func(content string) func(string) error {
		return func(empty string) error { return os.WriteFile(filepath.Join(empty, "x"), []byte(content), 0o600) }
	}
	broken := errors.New("broken")
	if err := MakeTree(dir, func(empty string) error { return errors.Join(with("half")(empty), broken) }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	for _, content := range []string{"first", "second"} {
		if err := MakeTree(dir, with(content)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(dir, "x")); err != nil || string(got) != "first" {
		t.Errorf("got %q, %v", got, err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("got %v, %v", info, err)
	}
	if left, err := os.ReadDir(above); err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestWriteFileFails leaves the old file and nothing beside it.
func TestWriteFileFails(t *testing.T) {
	dir := t.TempDir()
	taken := filepath.Join(dir, "taken") // a folder cannot be replaced by a file
	if err := os.MkdirAll(filepath.Join(taken, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(taken, []byte("x"), 0o600); err == nil {
		t.Error("a folder was replaced")
	}
	if err := WriteFile(filepath.Join(dir, "none", "x"), nil, 0o600); err == nil {
		t.Error("a file in no folder was written")
	}
	var names []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, _ fs.DirEntry, err error) error {
		names = append(names, path)
		return err
	})
	if len(names) != 3 || err != nil {
		t.Errorf("got %v, %v", names, err)
	}
	if err := MkdirAll(filepath.Join(dir, "taken", "full", "x", "y"), 0o700); err != nil {
		t.Error(err)
	}
}

// What cannot be written whole leaves the old file and nothing else.
func TestFailedWriteLeavesTheOldFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "key")
	if err := WriteFile(name, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("the source ended")
	err := Write(name, 0o600, func(f *os.File) error {
		if _, err := f.WriteString("ne"); err != nil {
			return err
		}
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	if got, err := os.ReadFile(name); string(got) != "old" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if left, err := os.ReadDir(dir); len(left) != 1 || err != nil {
		t.Errorf("left: %v, %v", left, err)
	}
}
