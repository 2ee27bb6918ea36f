package bundle

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of a model of several files.
const (
	MaxFiles = 10_000
	MaxName  = 1024 // bytes of a file's name with its folders
	MaxDepth = 16   // folders within each other
)

// File is one file of a model.
type File struct {
	Name string // in the model, its folders divided by '/'
	Path string // on this machine
	Size int64  // bytes
}

// Write writes the archive of the files: in the order of their names, with
// nothing of this machine but names and contents. It fails where a file has
// changed its size.
func Write(w io.Writer, files []File) error {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	if len(files) > MaxFiles {
		return fmt.Errorf("the model has %d files, at most %d can be served", len(files), MaxFiles)
	}
	tw := tar.NewWriter(w)
	for i, f := range files {
		if err := CheckName(f.Name); err != nil {
			return err
		}
		if i > 0 && files[i-1].Name == f.Name {
			return fmt.Errorf("the model has two files %q", f.Name)
		}
		if err := add(tw, &f); err != nil {
			return fmt.Errorf("pack %s: %w", f.Path, err)
		}
	}
	return tw.Close()
}

func add(tw *tar.Writer, f *File) error {
	in, err := os.Open(f.Path)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.Name, Size: f.Size, Mode: 0o444}); err != nil {
		return err
	}
	switch n, err := io.Copy(tw, io.LimitReader(in, f.Size+1)); {
	case errors.Is(err, tar.ErrWriteTooLong) || err == nil && n < f.Size:
		return errors.New("its size changed meanwhile")
	case err != nil:
		return err
	}
	return nil
}

// CheckName refuses a name that would lead out of the model's folder, or that a
// person could not read.
func CheckName(name string) error {
	bad := func(why string) error { return fmt.Errorf("the name %.100q of a file of the model %s", name, why) }
	switch {
	case name == "" || !filepath.IsLocal(name) || filepath.Clean(name) != name || strings.ContainsRune(name, '\\'):
		return bad("leads out of the model's folder, or is not in its shortest form")
	case len(name) > MaxName:
		return bad(fmt.Sprintf("has %d bytes, at most %d can be stored", len(name), MaxName))
	case strings.Count(name, "/") > MaxDepth:
		return bad(fmt.Sprintf("has more than %d folders", MaxDepth))
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return bad("is not plain UTF-8")
	}
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > 255 {
			return bad("has a part longer than 255 bytes")
		}
	}
	return nil
}
