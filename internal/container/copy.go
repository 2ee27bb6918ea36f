package container

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// openInside opens a path as the container sees it: its mounts, its root. Links
// lead nowhere outside, whatever the container does meanwhile.
func (r *Runtime) openInside(ctx context.Context, id, name string, flags uint64) (*os.File, record, error) {
	_, rec, err := r.container(ctx, id)
	if err != nil {
		return nil, rec, err
	}
	task, err := r.task(ctx, id)
	if err != nil {
		return nil, rec, err
	}
	pid, err := task.PID(ctx)
	if err != nil {
		return nil, rec, err
	}
	root, err := os.OpenFile("/proc/"+strconv.Itoa(int(pid))+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, rec, err
	}
	defer root.Close()
	// The number may have passed to another process before it was opened.
	if again, err := task.PID(ctx); err != nil || again != pid {
		return nil, rec, ErrNotRunning
	}
	fd, err := unix.Openat2(int(root.Fd()), cleanInside(name), &unix.OpenHow{
		Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, rec, fmt.Errorf("%s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), rec, nil
}

// opened names an open file by its descriptor.
func opened(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// CopyOut writes the file or folder at name in a running container to w as a
// tar stream, its own name first. Owners are the container's.
// Errors: ErrNotFound, ErrNotRunning, fs.ErrNotExist.
func (r *Runtime) CopyOut(ctx context.Context, id, name string, w io.Writer) error {
	fail := func(err error) error { return fmt.Errorf("copy %s from container %s: %w", name, id, err) }
	file, rec, err := r.openInside(r.context(ctx), id, name, unix.O_PATH)
	if err != nil {
		return fail(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fail(err)
	}
	out := &tarOut{ctx: ctx, w: tar.NewWriter(w), uidBase: rec.UIDBase}
	base := path.Base(cleanInside(name))
	if info.IsDir() {
		var root *os.Root
		if root, err = os.OpenRoot(opened(file)); err == nil {
			defer root.Close()
			err = out.tree(root, strings.TrimPrefix(base, "/"))
		}
	} else {
		err = out.file(info, base, func() (*os.File, error) {
			return os.OpenFile(opened(file), os.O_RDONLY|unix.O_NONBLOCK, 0)
		})
	}
	if err != nil {
		return fail(err)
	}
	return out.w.Close()
}

// tarOut writes files of a container to a tar stream.
type tarOut struct {
	ctx     context.Context
	w       *tar.Writer
	uidBase uint32
}

// tree writes all that is in root, as base.
func (t *tarOut) tree(root *os.Root, base string) error {
	return fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := t.ctx.Err(); err != nil {
			return err
		}
		info, err := root.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went while we walked
		} else if err != nil {
			return err
		}
		full := path.Join(base, name)
		switch {
		case info.IsDir():
			return t.header(info, full+"/", "")
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := root.Readlink(name)
			if err != nil {
				return err
			}
			return t.header(info, full, target)
		}
		return t.file(info, full, func() (*os.File, error) {
			return root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
		})
	})
}

// file writes a regular file. Sockets, pipes and devices are passed over.
func (t *tarOut) file(info fs.FileInfo, name string, open func() (*os.File, error)) error {
	if !info.Mode().IsRegular() {
		return nil
	}
	file, err := open()
	if err != nil {
		return err
	}
	defer file.Close()
	if info, err = file.Stat(); err != nil || !info.Mode().IsRegular() {
		return err
	}
	if err := t.header(info, name, ""); err != nil {
		return err
	}
	n, err := io.Copy(t.w, io.LimitReader(file, info.Size()))
	if err == nil && n < info.Size() {
		err = fmt.Errorf("%s shrank while it was read", name)
	}
	return err
}

func (t *tarOut) header(info fs.FileInfo, name, target string) error {
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	header.Name, header.Format = name, tar.FormatPAX
	header.Uname, header.Gname = "", "" // names of this host mean nothing there
	header.AccessTime, header.ChangeTime = time.Time{}, time.Time{}
	header.Uid, header.Gid = t.inside(header.Uid), t.inside(header.Gid)
	return t.w.WriteHeader(header)
}

// inside turns an id of the host into the container's.
func (t *tarOut) inside(id int) int {
	if id -= int(t.uidBase); t.uidBase != 0 && (id < 0 || id >= uidsEach) {
		return 65534 // the kernel's overflow id
	}
	return id
}

// CopyIn unpacks a tar stream into the folder dir of a running container, with
// the rights of the container's user, who owns the result. Files that are there
// are replaced. Nothing is written outside dir, whatever the stream or the
// container says. When it fails, files before the failure are there.
// Errors: ErrNotFound, ErrNotRunning, fs.ErrNotExist, fs.ErrPermission.
func (r *Runtime) CopyIn(ctx context.Context, id, dir string, stream io.Reader) error {
	fail := func(err error) error {
		switch {
		case errors.Is(err, syscall.EROFS):
			err = fmt.Errorf("%w; copy to /tmp or a volume, or allow a writable root", err)
		case errors.Is(err, fs.ErrPermission):
			err = fmt.Errorf("%w: the container's user may not write there", err)
		}
		return fmt.Errorf("copy to %s in container %s: %w", dir, id, err)
	}
	file, rec, err := r.openInside(r.context(ctx), id, dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return fail(err)
	}
	defer file.Close()
	root, err := os.OpenRoot(opened(file))
	if err != nil {
		return fail(err)
	}
	defer root.Close()
	in := tarIn{ctx: ctx, root: root, left: r.config.UnpackBytes}
	if err := asUser(int(rec.UIDBase+rec.UID), int(rec.UIDBase+rec.GID), func() error { return in.unpack(stream) }); err != nil {
		return fail(err)
	}
	return nil
}

// asUser runs f with another user's rights to files.
func asUser(uid, gid int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and its rights with it.
		runtime.LockOSThread()
		if _, err := unix.SetfsgidRetGid(gid); err != nil {
			done <- err
			return
		}
		if _, err := unix.SetfsuidRetUid(uid); err != nil {
			done <- err
			return
		}
		if err := dropCapabilities(); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// dropCapabilities gives up all capabilities of the calling thread. A change of
// its user leaves it CAP_SYS_RESOURCE, with which quotas do not hold.
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	return nil
}

// tarIn unpacks a tar stream below root.
type tarIn struct {
	ctx  context.Context
	root *os.Root
	left int64
}

func (t *tarIn) unpack(stream io.Reader) error {
	in := tar.NewReader(stream)
	for {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		header, err := in.Next()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("not a tar stream, or cut short: %w", err)
		}
		if t.left -= header.Size + 512; t.left < 0 {
			return fmt.Errorf("more than this node's bound: %w", ErrTooLarge)
		}
		name := strings.TrimPrefix(path.Clean("/"+header.Name), "/")
		if name == "" {
			continue
		}
		if err := t.entry(name, header, in); err != nil {
			return err
		}
	}
}

func (t *tarIn) entry(name string, header *tar.Header, content io.Reader) error {
	mode := header.FileInfo().Mode().Perm() // no setuid, no sticky bit
	if dir := path.Dir(name); dir != "." {
		if err := t.root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if header.Typeflag == tar.TypeDir {
		if err := t.root.MkdirAll(name, 0o755); err != nil {
			return err
		}
		return t.root.Chmod(name, mode)
	}
	if err := t.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch header.Typeflag {
	case tar.TypeReg:
		file, err := t.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		if err != nil {
			return err
		}
		_, err = io.Copy(file, content)
		if err = errors.Join(err, file.Chmod(mode), file.Close()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return t.root.Chtimes(name, time.Time{}, header.ModTime)
	case tar.TypeSymlink:
		return t.root.Symlink(header.Linkname, name)
	case tar.TypeLink:
		return t.root.Link(strings.TrimPrefix(path.Clean("/"+header.Linkname), "/"), name)
	}
	return fmt.Errorf("%s: devices, pipes and sockets are not copied", name)
}
