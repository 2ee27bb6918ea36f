package hardwaretest

import (
	"archive/tar"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Tree is a file tree by absolute path.
type Tree struct {
	Files map[string]string
	Links map[string]string
}

// NewTree returns an empty tree.
func NewTree() *Tree {
	return &Tree{Files: map[string]string{}, Links: map[string]string{}}
}

// File adds a file; the newline that sysfs prints is added to it.
func (t *Tree) File(name, content string) { t.Files[name] = content + "\n" }

// Filef is File with a format.
func (t *Tree) Filef(name, format string, args ...any) { t.File(name, fmt.Sprintf(format, args...)) }

// Link adds a relative link from name to the absolute path target.
func (t *Tree) Link(name, target string) {
	up := strings.Repeat("../", strings.Count(path.Dir(name), "/"))
	if path.Dir(name) == "/" {
		up = ""
	}
	t.Links[name] = up + strings.TrimPrefix(target, "/")
}

// Remove takes away a path and everything below it, as an unplugged device.
func (t *Tree) Remove(name string) {
	for _, m := range []map[string]string{t.Files, t.Links} {
		maps.DeleteFunc(m, func(at, _ string) bool { return at == name || strings.HasPrefix(at, name+"/") })
	}
}

// Write writes the tree below a directory.
func (t *Tree) Write(dir string) error {
	for name, content := range t.Files {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(at, []byte(content), 0o644); err != nil {
			return err
		}
	}
	for name, target := range t.Links {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(target, at); err != nil {
			return err
		}
	}
	return nil
}

// Archive writes the tree as an uncompressed tar, always in the same bytes.
func (t *Tree) Archive(w io.Writer) error {
	a := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(t.Files)) {
		h := &tar.Header{Name: "machine" + name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(t.Files[name]))}
		if err := a.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.WriteString(a, t.Files[name]); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.Links)) {
		h := &tar.Header{Name: "machine" + name, Typeflag: tar.TypeSymlink, Linkname: t.Links[name], Mode: 0o777}
		if err := a.WriteHeader(h); err != nil {
			return err
		}
	}
	return a.Close()
}
