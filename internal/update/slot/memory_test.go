package slot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"

	"oscine.dev/oscine/internal/release"
)

// errCut is what everything returns once power has failed.
var errCut = errors.New("power has failed")

// memoryDisk is a disk in memory whose power fails, or one of whose operations
// fails, at a chosen one. What was not flushed then is kept or lost at random, in
// any order and half done, as on a disk with a cache and a FAT without journal.
type memoryDisk struct {
	files    map[string][]byte // what the programs see
	durable  map[string][]byte
	parts    map[string]*memoryPartition
	capacity int64           // of the ESP
	replaced map[string]bool // names that have one file or the other when power fails
	broken   map[string]int  // files of so many bytes whose rest cannot be read

	operations int
	failAt     int // the operation that fails; 0 for none
	cut        bool
	off        bool // power has failed
}

type memoryPartition struct {
	disk          *memoryDisk
	data, durable []byte
}

func newMemoryDisk(slot, capacity int64) *memoryDisk {
	d := &memoryDisk{files: map[string][]byte{}, durable: map[string][]byte{}, parts: map[string]*memoryPartition{}, capacity: capacity}
	for _, name := range release.Slots() {
		d.parts[name] = &memoryPartition{d, make([]byte, slot), make([]byte, slot)}
	}
	return d
}

// operation counts one change; do makes it, all or half of it.
func (d *memoryDisk) operation(do func(half bool)) error {
	if d.off {
		return errCut
	}
	d.operations++
	if d.operations != d.failAt {
		do(false)
		return nil
	}
	if d.cut {
		do(true)
		d.off = true
		return errCut
	}
	return fmt.Errorf("operation %d: %w", d.failAt, errors.New("input/output error"))
}

// restart gives back power: what was flushed is there, of the rest some.
func (d *memoryDisk) restart(r *rand.Rand) {
	d.off, d.failAt, d.operations = false, 0, 0
	defer func() { d.replaced = nil }()
	names := map[string]bool{}
	for name := range d.files {
		names[name] = true
	}
	for name := range d.durable {
		names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		was, wasThere := d.durable[name]
		is, isThere := d.files[name]
		if wasThere && isThere && bytes.Equal(was, is) {
			continue
		}
		switch {
		case d.replaced[name] && wasThere:
			if r.IntN(2) == 0 {
				d.files[name] = was
			}
		case r.IntN(3) == 0 && wasThere: // undone
			d.files[name] = was
		case r.IntN(2) == 0 && isThere && !d.flushed(is): // half done
			d.files[name] = slices.Clone(is[:r.IntN(len(is)+1)])
		case isThere && r.IntN(2) == 0: // done
		default:
			delete(d.files, name)
		}
	}
	d.durable = maps.Clone(d.files)
	for _, p := range d.parts {
		for at := 0; at < len(p.data); at += release.BlockSize {
			if r.IntN(2) == 0 {
				copy(p.data[at:at+release.BlockSize], p.durable[at:])
			}
		}
		copy(p.durable, p.data)
	}
}

// flushed reports whether content is on the disk, under whatever name: another
// name does not touch it.
func (d *memoryDisk) flushed(content []byte) bool {
	for _, c := range d.durable {
		if bytes.Equal(c, content) {
			return true
		}
	}
	return false
}

// ESP implements Disk.
func (d *memoryDisk) ESP(f func(ESP) error) error {
	if d.off {
		return errCut
	}
	return f(memoryESP{d})
}

// Open implements Disk.
func (d *memoryDisk) Open(slot string) (Partition, error) {
	if d.off {
		return nil, errCut
	}
	return d.parts[slot], nil
}

func (p *memoryPartition) ReadAt(b []byte, at int64) (int, error) {
	return bytes.NewReader(p.data).ReadAt(b, at)
}

func (p *memoryPartition) WriteAt(b []byte, at int64) (n int, err error) {
	if at+int64(len(b)) > p.Size() {
		return 0, errors.New("beyond the end of the partition")
	}
	err = p.disk.operation(func(half bool) {
		if half {
			b = b[:len(b)/2]
		}
		copy(p.data[at:], b)
	})
	return len(b), err
}

func (p *memoryPartition) Close() error { return nil }
func (p *memoryPartition) Size() int64  { return int64(len(p.data)) }
func (p *memoryPartition) Flush() error {
	return p.disk.operation(func(half bool) {
		if !half {
			copy(p.durable, p.data)
		}
	})
}

// brokenFile can be read up to an offset.
type brokenFile struct {
	memoryFile
	good int64
}

func (f brokenFile) ReadAt(b []byte, at int64) (int, error) {
	if at+int64(len(b)) > f.good {
		return 0, errors.New("input/output error")
	}
	return f.memoryFile.ReadAt(b, at)
}

type memoryESP struct{ d *memoryDisk }

func (e memoryESP) List(dir string) (names []string, err error) {
	for name := range e.d.files {
		if path.Dir(name) == dir {
			names = append(names, path.Base(name))
		}
	}
	return names, nil
}

type memoryFile struct{ *bytes.Reader }

func (memoryFile) Close() error { return nil }

func (e memoryESP) Open(name string) (File, error) {
	content, ok := e.d.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	if n, ok := e.d.broken[name]; ok {
		return brokenFile{memoryFile{bytes.NewReader(content)}, int64(n)}, nil
	}
	return memoryFile{bytes.NewReader(content)}, nil
}

func (e memoryESP) Create(name string, content io.Reader, size int64) error {
	all, err := io.ReadAll(content)
	if err != nil {
		return err
	}
	if free, _ := e.Free(); size > free {
		return errors.New("no space left on device")
	}
	return e.d.operation(func(half bool) {
		if half {
			all = all[:len(all)/2]
		}
		e.d.files[name] = all
	})
}

func (e memoryESP) Rename(name, to string) error {
	return e.d.operation(func(half bool) {
		e.d.files[path.Join(path.Dir(name), to)] = e.d.files[name]
		delete(e.d.broken, path.Join(path.Dir(name), to))
		if !half {
			delete(e.d.files, name)
		}
	})
}

func (e memoryESP) Replace(name, to string) error {
	to = path.Join(path.Dir(name), to)
	err := e.d.operation(func(bool) {
		e.d.files[to] = e.d.files[name]
		delete(e.d.files, name)
		delete(e.d.broken, to)
		e.d.replaced = map[string]bool{to: true}
	})
	if err != nil {
		return err
	}
	return e.Flush()
}

func (e memoryESP) Remove(name string) error {
	return e.d.operation(func(bool) { delete(e.d.files, name) })
}

func (e memoryESP) Wipe(name string) error { return e.Remove(name) }

func (e memoryESP) Flush() error {
	return e.d.operation(func(half bool) {
		if !half {
			e.d.durable = maps.Clone(e.d.files)
		}
	})
}

func (e memoryESP) Free() (int64, error) {
	free := e.d.capacity
	for _, content := range e.d.files {
		free -= int64(len(content))
	}
	return free, nil
}
