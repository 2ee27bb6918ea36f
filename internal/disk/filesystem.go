package disk

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/linux"
)

// fileSystem bounds what folders of one file system hold. Where it counts projects,
// as the image's ext4 does, the kernel refuses what passes a bound; elsewhere
// used must be asked. See Documentation/filesystems/quota.rst.
type fileSystem struct {
	root    string
	limited bool
}

// system is the part of a file system that Disk needs; see fileSystem.
type system interface {
	enforces() bool
	space() (Space, error)
	claim(dir string) error
	bound(dir string, limit Amount) error
	used(dir string) (Amount, error)
}

// enforces reports whether the kernel refuses what passes a bound.
func (f *fileSystem) enforces() bool { return f.limited }

// openFileSystem looks at the file system that holds root.
func openFileSystem(root string) (*fileSystem, error) {
	f, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return &fileSystem{root, linux.ProjectsLimited(f)}, nil
}

// Amount is a part of a file system. Each file and folder takes an inode, of
// which ext4 has a fixed number.
type Amount struct{ Bytes, Inodes int64 }

// Space is what a file system has.
type Space struct {
	Size Amount // all of it; no inodes where the file system makes them as needed
	Free Amount // for others than root
}

// counted reports whether the file system has a fixed number of inodes.
func (s *Space) counted() bool { return s.Size.Inodes > 0 }

// space looks at what the file system has.
func (f *fileSystem) space() (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(f.root, &st); err != nil {
		return Space{}, fmt.Errorf("free space of %s: %w", f.root, err)
	}
	return Space{
		Size: Amount{int64(st.Blocks) * st.Bsize, int64(st.Files)},
		Free: Amount{int64(st.Bavail) * st.Bsize, int64(st.Ffree)},
	}, nil
}

// project numbers a folder: by its path, so that nothing need be remembered.
// The lowest numbers are left to people.
func project(dir string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(filepath.Clean(dir))) // never fails
	return h.Sum32() | 1<<24
}

// claim counts all below a folder together from now on. Where the file system
// does not count, it does nothing. Nobody may write below dir meanwhile.
func (f *fileSystem) claim(dir string) error {
	if !f.limited {
		return nil
	}
	top, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer top.Close()
	// The folder itself comes last: where it is in the project, all below is.
	if now, err := linux.Project(top); err != nil || now == project(dir) {
		return err
	}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir || (!e.IsDir() && !e.Type().IsRegular()) {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		return linux.SetProject(f, project(dir))
	})
	if err != nil {
		return err
	}
	return linux.SetProject(top, project(dir))
}

// bound lets a claimed folder hold so much, 0 for no bound. It returns
// errors.ErrUnsupported where nobody but used can tell.
func (f *fileSystem) bound(dir string, limit Amount) error {
	if !f.limited {
		return errors.ErrUnsupported
	}
	at, err := os.Open(f.root)
	if err != nil {
		return err
	}
	defer at.Close()
	return linux.LimitProject(at, project(dir), limit.Bytes, limit.Inodes)
}

// maxFiles bounds how many files are counted one by one.
const maxFiles = 1 << 20

// used returns what a claimed folder holds, by the kernel's count, or by looking
// at every file where it keeps none. A folder that is not there holds nothing.
func (f *fileSystem) used(dir string) (Amount, error) {
	if !f.limited {
		return measure(dir)
	}
	at, err := os.Open(f.root)
	if err != nil {
		return Amount{}, err
	}
	defer at.Close()
	bytes, inodes, err := linux.ProjectUsage(at, project(dir))
	return Amount{bytes, inodes}, err
}

// measure adds up all files below a folder, the folder itself included.
func measure(dir string) (Amount, error) {
	var sum Amount
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if sum.Inodes >= maxFiles {
			return fs.SkipAll
		}
		if err != nil {
			return nil // deleted meanwhile
		}
		sum.Inodes++
		if info, err := e.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				sum.Bytes += st.Blocks * 512
			}
		}
		return nil
	})
	return sum, err
}
