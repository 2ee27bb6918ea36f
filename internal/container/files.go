package container

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

// Files are small files in memory that a container reads and nobody else on the
// node but root: each is the container's user's, with mode 0400, in a read-only
// folder.
type Files struct {
	Target string // of the folder; absolute, in the container
	// Content is by name, without folders. It is no part of what makes a Spec
	// another: Start rewrites the files of a container that runs.
	Content map[string][]byte `json:"-"`
}

// filesBytes bounds the file system of a container's Files.
const filesBytes = 8 << 20

func (r *Runtime) filesDir(id string) string { return filepath.Join(r.stateDir(id), "files") }

func filesAt(dir string, i int) string { return filepath.Join(dir, strconv.Itoa(i)) }

// mountFiles makes the file system of Files, and adds their folders to the
// mounts of the plan, which gives them to the container's user.
func (r *Runtime) mountFiles(p *plan) error {
	if len(p.spec.Files) == 0 {
		return nil
	}
	dir := r.filesDir(p.spec.ID)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	memory := mount.Mount{Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "noexec", "mode=0711", "size=" + strconv.Itoa(filesBytes), "nr_inodes=4096"}}
	if err := memory.Mount(dir); err != nil {
		return fmt.Errorf("make the file system of secrets: %w", err)
	}
	mounts := append([]Mount{}, p.spec.Mounts...)
	for i, f := range p.spec.Files {
		mounts = append(mounts, Mount{Source: filesAt(dir, i), Target: f.Target, ReadOnly: true, Volume: true})
	}
	p.spec.Mounts = mounts
	return nil
}

// writeFiles makes the files of a container as its Spec says, where they are
// not yet. A reader sees the whole old file or the whole new one.
func (r *Runtime) writeFiles(spec Spec) error {
	for i, f := range spec.Files {
		if err := writeFolder(filesAt(r.filesDir(spec.ID), i), f.Content); err != nil {
			return fmt.Errorf("write the files of %s: %w", f.Target, err)
		}
	}
	return nil
}

func writeFolder(dir string, content map[string][]byte) error {
	var owner unix.Stat_t
	if err := unix.Stat(dir, &owner); err != nil {
		return fmt.Errorf("stat %s: %w", dir, err)
	}
	there, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range there {
		if _, wanted := content[entry.Name()]; !wanted {
			if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	for name, value := range content {
		if !filepath.IsLocal(name) || filepath.Base(name) != name {
			return fmt.Errorf("%q is no name of a file", name)
		}
		path := filepath.Join(dir, name)
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, value) {
			continue
		}
		if err := replaceFile(path, value, int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	return os.Chmod(dir, 0o500)
}

// replaceFile writes a file of an owner with mode 0400.
func replaceFile(path string, value []byte, uid, gid int) (err error) {
	// The name is no entry's: entries don't begin with a dot.
	temporary := filepath.Join(filepath.Dir(path), ".new")
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o400)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temporary))
		}
	}()
	_, err = f.Write(value)
	if err = errors.Join(err, f.Chown(uid, gid), f.Chmod(0o400), f.Close()); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

// unmountFiles frees the memory of a container's Files.
func (r *Runtime) unmountFiles(id string) error {
	err := mount.UnmountAll(r.filesDir(id), unix.MNT_DETACH)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
