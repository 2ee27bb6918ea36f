package cli

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func tarOf(t testing.TB, headers ...tar.Header) *bytes.Buffer {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range headers {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content = "of " + h.Name
		}
		h.Size, h.Mode = int64(len(content)), 0o644
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &out
}

func filesBelow(t testing.TB, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, name)
		names = append(names, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestCopyOutWritesWhatWasAskedFor has a hostile node send more.
func TestCopyOutWritesWhatWasAskedFor(t *testing.T) {
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
	folder := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name} }
	link := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
	}
	for _, c := range []struct {
		name, base, rename string
		stream             []tar.Header
		want               []string
		refused            bool
	}{
		{"a file", "data", "", []tar.Header{file("data")}, []string{".", "data"}, false},
		{"a file, renamed", "data", "mine", []tar.Header{file("data")}, []string{".", "mine"}, false},
		{"a folder", "out", "", []tar.Header{folder("out/"), file("out/a"), folder("out/b/"), file("out/b/c")}, []string{".", "out", "out/a", "out/b", "out/b/c"}, false},
		{"the root", ".", "all", []tar.Header{folder("./"), file("etc")}, []string{".", "all", "all/etc"}, false},
		{"another file", "data", "", []tar.Header{file(".bashrc")}, []string{"."}, true},
		{"another file first", "data", "mine", []tar.Header{file(".bashrc"), file("data")}, []string{"."}, true},
		{"another file after", "data", "", []tar.Header{file("data"), file(".bashrc")}, []string{".", "data"}, true},
		{"beside the folder", "out", "", []tar.Header{folder("out/"), file("out/../.bashrc")}, []string{".", "out"}, true},
		{"through a link", "out", "", []tar.Header{folder("out/"), link("out/up", ".."), file("out/up/.bashrc")}, []string{".", "out", "out/up"}, true},
		{"the folder is a link", "out", "", []tar.Header{link("out", "."), file("out/.bashrc")}, []string{".", "out"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			err := readTar(tarOf(t, c.stream...), dir, c.base, c.rename)
			if (err != nil) != c.refused {
				t.Errorf("got error %v, want one: %v", err, c.refused)
			}
			if got := filesBelow(t, dir); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// FuzzReadTar writes nothing beside the file or folder asked for.
func FuzzReadTar(f *testing.F) {
	f.Add(tarOf(f, tar.Header{Typeflag: tar.TypeDir, Name: "out/"}, tar.Header{Typeflag: tar.TypeReg, Name: "out/a"}).Bytes())
	f.Add(tarOf(f, tar.Header{Typeflag: tar.TypeSymlink, Name: "out", Linkname: ".."}, tar.Header{Typeflag: tar.TypeReg, Name: "out/a"}).Bytes())
	f.Fuzz(func(t *testing.T, stream []byte) {
		above := t.TempDir()
		dir := filepath.Join(above, "here")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		_ = readTar(bytes.NewReader(stream), dir, "out", "") // what it refuses is not the question
		for _, name := range filesBelow(t, above) {
			if name != "." && name != "here" && name != "here/out" && !strings.HasPrefix(name, "here/out/") {
				t.Errorf("%s was written", name)
			}
		}
	})
}
