package stick

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/install"
	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/source"
)

// scheme begins a location that names a file system by its label: stick:LABEL, or
// stick:LABEL/FOLDER.
const scheme = "stick:"

// Open is source.Open that also takes stick:LABEL/FOLDER. The errors of a stick that is
// not there wrap update.ErrUnreachable.
func Open(where string, o update.Options) (update.Source, error) {
	name, ok := strings.CutPrefix(where, scheme)
	if !ok {
		return source.Open(where, o)
	}
	label, folder, _ := strings.Cut(name, "/")
	found, err := find(install.Machine{}, label)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", update.ErrUnreachable, err)
	}
	return open("/dev/"+found.Device, found.Type, folder, o)
}

// find finds the file system with a label.
func find(m install.Machine, label string) (install.Content, error) {
	disks, err := m.Disks()
	if err != nil {
		return install.Content{}, err
	}
	var found []install.Content
	for _, d := range disks {
		for _, c := range d.Contents {
			if label != "" && c.Label == label {
				found = append(found, c)
			}
		}
	}
	switch {
	case len(found) == 0:
		return install.Content{}, fmt.Errorf("no file system has the label %q: plug the stick in, and see oscine install --list -o wide", label)
	case len(found) > 1:
		return install.Content{}, fmt.Errorf("the label %q is that of both %s and %s: pull one of them out", label, found[0].Device, found[1].Device)
	}
	return found[0], nil
}

// stick is a source that lies on a file system of its own.
type stick struct {
	update.Source
	dir string // where it is mounted
}

// open mounts a device and opens the release folder on it.
func open(device, kind, folder string, o update.Options) (update.Source, error) {
	dir, err := os.MkdirTemp("", "oscine-stick-")
	if err != nil {
		return nil, err
	}
	if err := mount(device, kind, dir); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", update.ErrUnreachable, err), os.Remove(dir))
	}
	s := &stick{dir: dir}
	if err := below(dir, folder); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", update.ErrUnreachable, err), s.unmount())
	}
	if s.Source, err = source.Open(filepath.Join(dir, folder), o); err != nil {
		return nil, errors.Join(err, s.unmount())
	}
	return s, nil
}

// below refuses a folder that is not on the stick.
func below(dir, folder string) error {
	if folder == "" {
		return nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	info, err := root.Stat(folder)
	if err == nil && !info.IsDir() {
		err = errors.New("it is no folder")
	}
	if err != nil {
		return fmt.Errorf("the folder %q on the stick: %w", folder, err)
	}
	return nil
}

// mount mounts a file system of a kind that each node can read.
func mount(device, kind, dir string) error {
	var options string
	switch kind {
	case "vfat":
	case "ext2", "ext3", "ext4":
		// Nothing is written, not even what a journal says. A stick may ask for a panic
		// of the kernel when it is damaged.
		kind, options = "ext4", "noload,errors=continue"
	default:
		return fmt.Errorf("%s holds %q: a node reads FAT32 and ext4", device, kind)
	}
	if err := unix.Mount(device, dir, kind, linux.Hardened|unix.MS_RDONLY, options); err != nil {
		return fmt.Errorf("mount %s: %w", device, err)
	}
	return nil
}

// Close implements update.Source.
func (s *stick) Close() error { return errors.Join(s.Source.Close(), s.unmount()) }

func (s *stick) unmount() error {
	if err := unix.Unmount(s.dir, 0); err != nil {
		return fmt.Errorf("unmount %s: %w", s.dir, err)
	}
	return os.Remove(s.dir)
}
