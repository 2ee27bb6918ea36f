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

// openFileSystem looks at the file system that holds root.
func openFileSystem(root string) (*fileSystem, error) {
	f, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return &fileSystem{root, linux.ProjectsLimited(f)}, nil
}

// free returns the bytes that are free for others than root, and all there
// are.
func (f *fileSystem) free() (free, size int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(f.root, &st); err != nil {
		return 0, 0, fmt.Errorf("free space of %s: %w", f.root, err)
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
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

// bound lets a claimed folder hold so many bytes, 0 for no bound. It returns
// errors.ErrUnsupported where nobody but used can tell.
func (f *fileSystem) bound(dir string, bytes int64) error {
	if !f.limited {
		return errors.ErrUnsupported
	}
	at, err := os.Open(f.root)
	if err != nil {
		return err
	}
	defer at.Close()
	return linux.LimitProject(at, project(dir), bytes)
}

// maxFiles bounds how many files are counted one by one.
const maxFiles = 1 << 20

// used returns the bytes that a claimed folder holds, by the kernel's count, or
// by looking at every file where it keeps none. A folder that is not there
// holds nothing.
func (f *fileSystem) used(dir string) (int64, error) {
	if f.limited {
		at, err := os.Open(f.root)
		if err != nil {
			return 0, err
		}
		defer at.Close()
		return linux.ProjectUsage(at, project(dir))
	}
	var bytes int64
	seen := 0
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if seen++; seen > maxFiles {
			return fs.SkipAll
		}
		if err != nil {
			return nil // deleted meanwhile
		}
		if info, err := e.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				bytes += st.Blocks * 512
			}
		}
		return nil
	})
	return bytes, err
}
