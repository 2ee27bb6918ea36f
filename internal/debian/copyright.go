package debian

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"oscine.dev/oscine/internal/bounded"
)

// maxCopyright bounds a copyright file in bytes.
const maxCopyright = 4 << 20

// Copyright returns the text of a package's copyright file and its path in the
// tree. A package may have that of another from the same source (Debian Policy,
// 12.5); where the tree holds neither, the error is fs.ErrNotExist.
func (t *Tree) Copyright(p Package) (file, text string, err error) {
	root, err := os.OpenRoot(t.Dir)
	if err != nil {
		return "", "", err
	}
	defer root.Close()
	for _, other := range append([]Package{p}, t.Packages...) {
		if other.Name != p.Name && !sameSource(p, other) {
			continue
		}
		file = path.Join("usr/share/doc", other.Name, "copyright")
		text, err = readCopyright(root, file)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return file, text, err
		}
	}
	return "", "", fmt.Errorf("copyright file of the package %s: %w", p.Name, fs.ErrNotExist)
}

func readCopyright(root *os.Root, file string) (string, error) {
	f, err := root.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := bounded.ReadAll(f, maxCopyright)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", file, err)
	}
	return string(text), nil
}

// sameSource reports whether two packages were built from one source: a mirror
// keeps them in a folder with its name. What Debian has signed lies in a folder
// of its own, whose name begins with that of the source, such as
// linux-signed-amd64.
func sameSource(a, b Package) bool {
	x, y := path.Dir(a.Path), path.Dir(b.Path)
	return a.Version == b.Version && (x == y || strings.HasPrefix(x, y+"-signed-") || strings.HasPrefix(y, x+"-signed-"))
}
