package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// WriteFile replaces the file name, or makes it, with exactly the mode perm.
// When it returns nil, content and name are on the disk: the file was flushed
// before it got its name, and the folder after it. On an error the old file is
// as it was. The folder must be there.
func WriteFile(name string, content []byte, perm fs.FileMode) error {
	return Write(name, perm, func(f *os.File) error {
		_, err := f.Write(content)
		return err
	})
}

// Write is WriteFile with what fill writes. Where fill fails, so does it.
func Write(name string, perm fs.FileMode, fill func(*os.File) error) error {
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, "."+filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	err = errors.Join(fill(f), f.Chmod(perm), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, errors.Join(err, os.Remove(f.Name())))
	}
	return SyncDir(dir)
}

// Rename gives a file another name in the same folder, or replaces the one that
// has it, and returns when the folder is on the disk.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(to))
}

// Replace is Rename for a file that other code has written: it is flushed before it
// gets its name.
func Replace(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("flush %s: %w", from, err)
	}
	return Rename(from, to)
}

// ReplaceTree is Rename for a folder that is finished: all that is in it is on
// the disk before it gets its name. It flushes every file system, so it is for
// what is made rarely.
func ReplaceTree(from, to string) error {
	syscall.Sync()
	return Rename(from, to)
}

// MakeTree makes a folder, with those above it, whole or not at all: fill puts into an
// empty folder what dir then holds, readable by all. Where another process was faster,
// what that one made stays.
func MakeTree(dir string, fill func(empty string) error) error {
	above := filepath.Dir(dir)
	if err := os.MkdirAll(above, 0o755); err != nil {
		return err
	}
	making, err := os.MkdirTemp(above, "new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(making)
	if err := fill(making); err != nil {
		return err
	}
	if err := os.Chmod(making, 0o755); err != nil {
		return err
	}
	if err := ReplaceTree(making, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Remove removes a file and returns when the folder is on the disk. A file that
// is not there is no error.
func Remove(name string) error {
	err := os.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return SyncDir(filepath.Dir(name))
}

// MkdirAll makes a folder with those above it, as os.MkdirAll, and returns when
// their names are on the disk.
func MkdirAll(dir string, perm fs.FileMode) error {
	if info, err := os.Stat(dir); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s is not a folder", dir)
		}
		return nil
	}
	above := filepath.Dir(dir)
	if above != dir {
		if err := MkdirAll(above, perm); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return SyncDir(above)
}

// SyncDir flushes a folder: the names in it, not the files.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("flush %s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("flush %s: %w", dir, err)
	}
	return nil
}

// maxWipe is how much of a file Wipe overwrites, in bytes.
const maxWipe = 1 << 20

// Wipe overwrites a file with zeros and removes it: FAT leaves the blocks of a removed
// file as they are. No such file is no error.
func Wipe(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = f.WriteAt(make([]byte, min(size, maxWipe)), 0)
	}
	return errors.Join(err, f.Sync(), f.Close(), Remove(name))
}
