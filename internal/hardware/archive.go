package hardware

import (
	"archive/tar"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Bounds of an archive: a recorded machine has some 20,000 files of a few
// bytes each; the limits leave room for a hundred times that.
const (
	maxArchiveEntries = 1 << 20
	maxArchiveBytes   = 256 << 20
)

// memory is a tree held in memory, filled from an archive or a generator.
type memory struct {
	files map[string][]byte
	links map[string]string
	dirs  map[string][]string
}

func newMemory() *memory {
	return &memory{files: map[string][]byte{}, links: map[string]string{}, dirs: map[string][]string{"/": nil}}
}

// openArchive reads a tar archive, plain or packed by gzip, bzip2, xz or
// zstd, into memory. Entries that would leave the archive are left out and
// named as gaps.
func openArchive(name string) (tree, []Gap, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, fmt.Errorf("hardware archive: %w", err)
	}
	defer f.Close()
	t, gaps, err := readArchive(f, name)
	if err != nil {
		return nil, nil, fmt.Errorf("hardware archive %s: %w", name, err)
	}
	return t, gaps, nil
}

func readArchive(r io.Reader, name string) (tree, []Gap, error) {
	unpacked, done, err := unpack(r, name)
	if err != nil {
		return nil, nil, err
	}
	defer done()
	m := newMemory()
	gaps, err := m.fill(tar.NewReader(unpacked))
	if err != nil {
		return nil, nil, err
	}
	root, found := m.machineRoot()
	if !found {
		return nil, nil, errors.New("holds no sys/devices or proc/cpuinfo: it is not a recorded machine")
	}
	return &subtree{m, root}, gaps, nil
}

// unpack chooses the decompressor by the name's end.
func unpack(r io.Reader, name string) (io.Reader, func(), error) {
	nothing := func() {}
	switch path.Ext(name) {
	case ".tar":
		return r, nothing, nil
	case ".bz2", ".tbz2":
		return bzip2.NewReader(r), nothing, nil
	case ".gz", ".tgz":
		z, err := gzip.NewReader(r)
		return z, nothing, err
	case ".xz", ".txz":
		z, err := xz.NewReader(r)
		return z, nothing, err
	case ".zst", ".tzst":
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxMemory(maxArchiveBytes))
		if err != nil {
			return nil, nothing, err
		}
		return z, z.Close, nil
	}
	return nil, nothing, errors.New("is neither a directory nor an archive named .tar, .tar.gz, .tar.bz2, .tar.xz or .tar.zst")
}

func (m *memory) fill(r *tar.Reader) ([]Gap, error) {
	var gaps []Gap
	total := 0
	for entries := 0; ; entries++ {
		h, err := r.Next()
		if err == io.EOF {
			return gaps, nil
		}
		if err != nil {
			if len(m.files) == 0 {
				return nil, err
			}
			return append(gaps, Gap{Path: "/", Reason: "archive ends early: " + err.Error()}), nil
		}
		if entries == maxArchiveEntries {
			return append(gaps, Gap{Path: "/", Reason: fmt.Sprintf("archive has more than %d entries; the rest was left out", maxArchiveEntries)}), nil
		}
		if !fs.ValidPath(strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")) && path.Clean(h.Name) != "." {
			gaps = append(gaps, Gap{Path: clip(h.Name), Reason: "archive entry with an unsafe path was left out"})
			continue
		}
		name := "/" + relative("/"+h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			m.dir(path.Clean(name))
		case tar.TypeSymlink:
			m.symlink(name, h.Linkname)
		case tar.TypeLink:
			if data, ok := m.files["/"+relative("/"+h.Linkname)]; ok {
				m.file(name, data)
			}
		case tar.TypeReg:
			data, err := io.ReadAll(io.LimitReader(r, maxTable))
			if err != nil {
				return append(gaps, Gap{Path: name, Reason: "archive ends early: " + err.Error()}), nil
			}
			if total += len(data); total > maxArchiveBytes {
				return append(gaps, Gap{Path: name, Reason: fmt.Sprintf("archive holds more than %d bytes; the rest was left out", maxArchiveBytes)}), nil
			}
			m.file(name, data)
		}
	}
}

func (m *memory) file(name string, data []byte) {
	if m.enter(name) {
		m.files[name] = data
	}
}

func (m *memory) symlink(name, target string) {
	if m.enter(name) {
		m.links[name] = target
	}
}

func (m *memory) dir(name string) {
	if name == "/" {
		return
	}
	if _, known := m.dirs[name]; !known && m.enter(name) {
		m.dirs[name] = nil
	}
}

// enter makes name known to its directory. The first entry of a name wins.
func (m *memory) enter(name string) bool {
	_, isFile := m.files[name]
	_, isLink := m.links[name]
	_, isDir := m.dirs[name]
	if isFile || isLink || isDir || name == "/" {
		return false
	}
	parent := path.Dir(name)
	m.dir(parent)
	if _, ok := m.dirs[parent]; !ok {
		return false
	}
	m.dirs[parent] = append(m.dirs[parent], path.Base(name))
	return true
}

// machineRoot finds the directory of the archive that stands for "/": the
// shortest one that has sys/devices or proc/cpuinfo below it.
func (m *memory) machineRoot() (string, bool) {
	best, found := "", false
	consider := func(name, mark string) {
		root, ok := strings.CutSuffix(name, mark)
		if ok && (!found || len(root) < len(best) || len(root) == len(best) && root < best) {
			best, found = root, true
		}
	}
	for name := range m.dirs {
		consider(name, "/sys/devices")
	}
	for name := range m.files {
		consider(name, "/proc/cpuinfo")
	}
	return best, found
}

// resolve follows links; the last component only when follow is set.
func (m *memory) resolve(root, name string, follow bool) (string, error) {
	at := root
	rest := strings.Split(relative(name), "/")
	for hops := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if at != root {
				at = strings.TrimSuffix(path.Dir(at), "/")
			}
			continue
		}
		at += "/" + part
		target, isLink := m.links[at]
		if !isLink || len(rest) == 0 && !follow {
			continue
		}
		if hops++; hops > maxLinks || len(rest) > 4*maxLinks {
			return "", fmt.Errorf("%s: too many links", clip(name))
		}
		if at = strings.TrimSuffix(path.Dir(at), "/"); path.IsAbs(target) {
			at = root
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return at, nil
}

// subtree is a memory tree whose root lies deeper, as archives have it.
type subtree struct {
	*memory
	root string
}

func (s *subtree) read(name string, limit int) ([]byte, error) {
	at, err := s.resolve(s.root, name, true)
	if err != nil {
		return nil, err
	}
	data, ok := s.files[at]
	if !ok {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fs.ErrNotExist}
	}
	return data[:min(len(data), limit)], nil
}

func (s *subtree) ranges(name string) (config, func(), error) {
	data, err := s.read(name, maxAttribute)
	return inMemory(data), func() {}, err
}

func (s *subtree) names(dir string) ([]string, error) {
	at, err := s.resolve(s.root, dir, true)
	if err != nil {
		return nil, err
	}
	if at == "" {
		at = "/"
	}
	names, ok := s.dirs[at]
	if !ok {
		return nil, &fs.PathError{Op: "list", Path: dir, Err: fs.ErrNotExist}
	}
	names = slices.Clone(names)
	slices.Sort(names)
	return names[:min(len(names), maxNames)], nil
}

func (s *subtree) link(name string) (string, error) {
	at, err := s.resolve(s.root, name, false)
	if err != nil {
		return "", err
	}
	target, ok := s.links[at]
	if !ok {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrNotExist}
	}
	return target, nil
}

func (s *subtree) exists(name string) bool {
	at, err := s.resolve(s.root, name, true)
	if err != nil {
		return false
	}
	_, isFile := s.files[at]
	_, isDir := s.dirs[at]
	return isFile || isDir || at == ""
}

func (s *subtree) Close() error { return nil }
