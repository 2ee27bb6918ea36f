package slot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/release"
)

// device is the disk of the running machine.
type device struct {
	sys  string // root of sysfs
	disk string // kernel name, such as vda
	dir  string // where the ESP is mounted while it is used

	mounted sync.Mutex // held while the ESP is
}

// OpenDisk returns the disk with that kernel name, such as vda. The ESP is
// mounted at dir, which is made, while it is used and only then.
func OpenDisk(disk, dir string) Disk { return &device{sys: "/sys", disk: disk, dir: dir} }

func (d *device) find(name string) (linux.Partition, error) {
	parts, err := linux.Partitions(d.sys)
	if err != nil {
		return linux.Partition{}, err
	}
	p, ok := linux.FindPartition(parts, d.disk, name)
	if !ok {
		return p, fmt.Errorf("%w: disk %s has no partition %s", ErrUnusable, d.disk, name)
	}
	return p, nil
}

// ESP implements Disk.
func (d *device) ESP(f func(ESP) error) error {
	d.mounted.Lock()
	defer d.mounted.Unlock()
	p, err := d.find(release.PartitionESP)
	if err != nil {
		return err
	}
	return linux.WithESP(p, d.dir, 0, func(dir string) error { return f(folder(dir)) })
}

// Open implements Disk.
func (d *device) Open(slot string) (Partition, error) {
	p, err := d.find(slot)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(p.Node(), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	size, err := linux.DeviceSize(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &partition{f, size}, nil
}

// partition is an open block device.
type partition struct {
	*os.File
	size int64
}

// Size implements Partition.
func (p *partition) Size() int64 { return p.size }

// Flush implements Partition.
func (p *partition) Flush() error { return linux.Flush(p.File) }

// folder is an ESP that is mounted there.
type folder string

func (f folder) at(path string) string { return filepath.Join(string(f), filepath.FromSlash(path)) }

// List implements ESP.
func (f folder) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(f.at(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

type espFile struct {
	*os.File
	size int64
}

// Size implements File.
func (f espFile) Size() int64 { return f.size }

// Open implements ESP.
func (f folder) Open(path string) (File, error) {
	file, err := os.Open(f.at(path))
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return espFile{file, info.Size()}, nil
}

// Create implements ESP.
func (f folder) Create(path string, content io.Reader, size int64) error {
	if err := os.MkdirAll(filepath.Dir(f.at(path)), 0o700); err != nil {
		return err
	}
	file, err := os.Create(f.at(path))
	if err != nil {
		return err
	}
	n, err := io.Copy(file, content)
	if err == nil && n != size {
		err = fmt.Errorf("%s: %d bytes came, %d were expected", path, n, size)
	}
	return errors.Join(err, file.Sync(), file.Close())
}

// Rename implements ESP.
func (f folder) Rename(path, name string) error {
	from := f.at(path)
	return os.Rename(from, filepath.Join(filepath.Dir(from), name))
}

// Replace implements ESP. The old file is open until the new name is on the disk: the
// kernel frees clusters when a file is closed, and a table on the disk that has them
// free before the folder has the new ones would leave the name with neither file.
func (f folder) Replace(path, name string) error {
	old, err := os.Open(filepath.Join(filepath.Dir(f.at(path)), name))
	if err == nil {
		defer old.Close()
	}
	if err := f.Rename(path, name); err != nil {
		return err
	}
	return f.Flush()
}

// Remove implements ESP.
func (f folder) Remove(path string) error {
	if err := os.Remove(f.at(path)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Wipe implements ESP.
func (f folder) Wipe(path string) error { return durable.Wipe(f.at(path)) }

// Flush implements ESP.
func (f folder) Flush() error {
	if err := linux.FlushFileSystem(string(f)); err != nil {
		return fmt.Errorf("flush the ESP: %w", err)
	}
	return nil
}

// Free implements ESP.
func (f folder) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(string(f), &st); err != nil {
		return 0, fmt.Errorf("the ESP's free space: %w", err)
	}
	return int64(st.Bavail) * int64(st.Frsize), nil
}
