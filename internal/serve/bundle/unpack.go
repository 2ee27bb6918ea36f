package bundle

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"
)

// ErrArchive means that an archive is none that Write wrote.
var ErrArchive = errors.New("not the archive of a model's folder (oscine serve FOLDER makes it)")

// Unpack writes the files of an archive into dir, which is empty, with at most
// maxBytes in all. Each is on disk when it returns, readable by all and writable
// by nobody. Archives that Write did not write are ErrArchive; what was written
// by then stays for the caller to remove.
func Unpack(r io.Reader, dir string, maxBytes int64) (size int64, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, fmt.Errorf("unpack the model: %w", err)
	}
	defer root.Close()
	tr := tar.NewReader(r)
	last := ""
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return size, ended(r, n)
		}
		if err != nil {
			return 0, fmt.Errorf("%w: %w", ErrArchive, err)
		}
		if err := check(h, last); err != nil {
			return 0, err
		}
		switch size += h.Size; {
		case n == MaxFiles:
			return 0, fmt.Errorf("%w: it has more than %d files", ErrArchive, MaxFiles)
		case h.Size > maxBytes || size > maxBytes:
			return 0, fmt.Errorf("%w: its files have more than %d bytes", ErrArchive, maxBytes)
		}
		if err := Extract(root, h.Name, tr); err != nil {
			return 0, fmt.Errorf("unpack the model's file %q: %w", h.Name, err)
		}
		last = h.Name
	}
}

// check refuses all that Write does not write: what is left is plain files, each
// as long as the archive's bytes for it, in order.
func check(h *tar.Header, last string) error {
	if err := CheckName(h.Name); err != nil {
		return fmt.Errorf("%w: %w", ErrArchive, err)
	}
	plain := h.Typeflag == tar.TypeReg && h.Mode == 0o444 && h.Uid == 0 && h.Gid == 0 && h.Uname == "" && h.Gname == "" &&
		h.Linkname == "" && h.ModTime.Equal(time.Unix(0, 0)) && h.Size >= 0
	for record := range h.PAXRecords {
		plain = plain && (record == "path" || record == "size")
	}
	switch {
	case !plain:
		return fmt.Errorf("%w: %q is not a plain file without owner and time", ErrArchive, h.Name)
	case h.Name <= last:
		return fmt.Errorf("%w: %q follows %q, names must ascend", ErrArchive, h.Name, last)
	}
	return nil
}

// ended refuses what follows the end of the archive.
func ended(r io.Reader, files int) error {
	if n, err := io.Copy(io.Discard, io.LimitReader(r, 1)); err != nil || n > 0 {
		return fmt.Errorf("%w: something follows its end", ErrArchive)
	}
	if files == 0 {
		return fmt.Errorf("%w: it holds no files", ErrArchive)
	}
	return nil
}

// Extract writes a model's file and its folders below root and returns when it is on
// disk, readable by all and writable by nobody. It refuses names as CheckName does, and names that are there.
func Extract(root *os.Root, name string, r io.Reader) error {
	if err := CheckName(name); err != nil {
		return err
	}
	folder := path.Dir(name)
	if err := root.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	// Workers read it under user ids of their own, whatever the umask.
	if err := errors.Join(err, f.Chmod(0o444), f.Sync(), f.Close()); err != nil {
		return err
	}
	return Flush(root, folder)
}

// ErrName means that a file of a model cannot have the name that it was given.
var ErrName = errors.New("a file of the model cannot have its name")

// Link gives a file outside of root, on the same file system, a name in the model, of which it
// may have several, and lets all read it and nobody write. It returns when the name is on disk. Names as CheckName
// refuses them and names that are there are ErrName.
func Link(root *os.Root, file, name string) error {
	if err := CheckName(name); err != nil {
		return fmt.Errorf("%w: %w", ErrName, err)
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return fmt.Errorf("%w: %w", ErrName, err)
	}
	if err := os.Chmod(file, 0o444); err != nil {
		return err
	}
	if err := os.Link(file, filepath.Join(root.Name(), filepath.FromSlash(name))); err != nil {
		if errors.Is(err, os.ErrExist) {
			err = fmt.Errorf("%w: there are two files %q", ErrName, name)
		}
		return err
	}
	return Flush(root, path.Dir(name))
}

// Flush puts the names in a folder and in those around it on disk, and lets all
// read them.
func Flush(root *os.Root, folder string) error {
	for at := folder; ; at = path.Dir(at) {
		if err := flush(root, at); err != nil || at == "." {
			return err
		}
	}
}

// flush puts the names in a folder on disk, and lets all read it.
func flush(root *os.Root, folder string) error {
	d, err := root.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(d.Chmod(0o755), d.Sync(), d.Close())
}
