package hardware

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds of what is taken from a tree. sysfs attributes are one page; only
// /proc/cpuinfo and a few tables are larger.
const (
	maxAttribute = 4 << 10
	maxTable     = 1 << 20
	maxNames     = 1 << 16
	maxLinks     = 40 // the kernel's own limit of links in one path
)

// tree is a file tree that a machine is read from. Paths are absolute within
// the tree and never leave it, whatever its links say.
type tree interface {
	// read returns the first limit bytes of a file.
	read(path string, limit int) ([]byte, error)
	// ranges opens a file of binary registers for reads at offsets.
	ranges(path string) (config, func(), error)
	// names lists a directory, sorted, at most maxNames entries.
	names(dir string) ([]string, error)
	// link returns the text of a symbolic link.
	link(path string) (string, error)
	// exists reports whether the path, links followed, leads to something.
	exists(path string) bool
	io.Closer
}

// openTree opens a directory or an archive as a tree.
func openTree(root string) (tree, []Gap, error) {
	info, err := os.Stat(root)
	if err != nil {
		return nil, nil, fmt.Errorf("hardware root: %w", err)
	}
	if !info.IsDir() {
		return openArchive(root)
	}
	t, err := openDirectory(root)
	return t, nil, err
}

// directory is a tree under a directory of the file system. The kernel keeps
// every lookup below it (openat2 with RESOLVE_IN_ROOT), so a link to
// /etc/shadow in a foreign tree leads nowhere.
type directory struct {
	fd      int
	resolve uint64
	root    *os.Root // where openat2 is missing or forbidden
}

func openDirectory(root string) (tree, error) {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("hardware root %s: %w", root, err)
	}
	d := &directory{fd: fd, resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if path.Clean(root) == "/" {
		d.resolve = unix.RESOLVE_NO_MAGICLINKS
	}
	probe, err := d.open(".", unix.O_PATH)
	if err == nil {
		return d, unix.Close(probe)
	}
	if d.root, err = os.OpenRoot(root); err != nil {
		return nil, errors.Join(fmt.Errorf("hardware root %s: %w", root, err), d.Close())
	}
	return d, nil
}

func (d *directory) open(name string, flags int) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: d.resolve}
	for {
		fd, err := unix.Openat2(d.fd, name, &how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

// relative turns a tree path into one below the root directory.
func relative(name string) string {
	if name = strings.TrimPrefix(path.Clean(name), "/"); name == "" {
		return "."
	}
	return name
}

func (d *directory) read(name string, limit int) ([]byte, error) {
	// O_NONBLOCK: a FIFO in a foreign tree must not hang the reader.
	if d.root != nil {
		f, err := d.root.OpenFile(relative(name), os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, int64(limit)))
	}
	fd, err := d.open(relative(name), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return readAll(fd, limit)
}

// readAll reads up to limit bytes. One page first: nearly every attribute
// fits, and a larger buffer costs more than the read.
func readAll(fd, limit int) ([]byte, error) {
	var page [maxAttribute]byte
	var out []byte
	for len(out) < limit {
		n, err := unix.Read(fd, page[:min(len(page), limit-len(out))])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		out = append(out, page[:n]...)
		if len(out) == n && n < len(page) && limit == maxAttribute {
			break // a short first read of an attribute is all of it
		}
	}
	return out, nil
}

func (d *directory) ranges(name string) (config, func(), error) {
	if d.root != nil {
		data, err := d.read(name, maxAttribute)
		return inMemory(data), func() {}, err
	}
	fd, err := d.open(relative(name), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, nil, err
	}
	at := func(offset, n int) []byte {
		buf := make([]byte, n)
		if got, err := unix.Pread(fd, buf, int64(offset)); err != nil || got != n {
			return nil
		}
		return buf
	}
	return at, func() { _ = unix.Close(fd) }, nil
}

// inMemory reads registers off a file's content.
func inMemory(data []byte) config {
	return func(offset, n int) []byte {
		if offset < 0 || offset+n > len(data) {
			return nil
		}
		return data[offset : offset+n]
	}
}

func (d *directory) names(dir string) ([]string, error) {
	f, err := d.openDir(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(maxNames)
	if err != nil && err != io.EOF {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

func (d *directory) openDir(dir string) (*os.File, error) {
	if d.root != nil {
		return d.root.Open(relative(dir))
	}
	fd, err := d.open(relative(dir), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), dir), nil
}

func (d *directory) link(name string) (string, error) {
	if d.root != nil {
		return d.root.Readlink(relative(name))
	}
	fd, err := d.open(relative(name), unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var buf [maxAttribute]byte
	n, err := unix.Readlinkat(fd, "", buf[:])
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

func (d *directory) exists(name string) bool {
	if d.root != nil {
		_, err := d.root.Stat(relative(name))
		return err == nil
	}
	fd, err := d.open(relative(name), unix.O_PATH)
	if err != nil {
		return false
	}
	return unix.Close(fd) == nil
}

func (d *directory) Close() error {
	err := unix.Close(d.fd)
	if d.root != nil {
		err = errors.Join(err, d.root.Close())
	}
	return err
}

// absent reports whether err only says that there is nothing at a path.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}
