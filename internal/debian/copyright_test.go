package debian

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCopyright(t *testing.T) {
	tree := &Tree{Dir: t.TempDir(), Packages: []Package{
		{Name: "libx1", Version: "1-2", Path: "pool/main/x/x/libx1.deb"},
		{Name: "x-base", Version: "1-2", Path: "pool/main/x/x/x-base.deb"},
		{Name: "x-image", Version: "1-2", Path: "pool/main/x/x-signed-amd64/x-image.deb"},
		{Name: "x-old", Version: "1-1", Path: "pool/main/x/x/x-old.deb"},
		{Name: "xyz", Version: "1-2", Path: "pool/main/x/xyz/xyz.deb"},
		{Name: "large", Version: "1", Path: "pool/main/l/large/large.deb"},
	}}
	put := func(name, text string) {
		file := filepath.Join(tree.Dir, "usr/share/doc", name, "copyright")
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	put("x-base", "terms of x")
	put("large", strings.Repeat("x", maxCopyright+1))
	for i, want := range []string{"terms of x", "terms of x", "terms of x", "", ""} {
		p := tree.Packages[i]
		file, text, err := tree.Copyright(p)
		if text != want || (want == "") != errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %q, %v; want %q", p.Name, text, err, want)
		}
		if want != "" && file != "usr/share/doc/x-base/copyright" {
			t.Errorf("%s: file %s", p.Name, file)
		}
	}
	if _, text, err := tree.Copyright(tree.Packages[5]); err == nil || text != "" {
		t.Errorf("a copyright file of more than 4 MiB: %d bytes, %v", len(text), err)
	}
}
