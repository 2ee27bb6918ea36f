package share

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/update"
)

// partial ends the names of files that are not whole.
const partial = ".part"

// Cache is a folder of files by their digests, of a bounded size. What was not used for the
// longest time gives way. It is safe for concurrent use.
type Cache struct {
	dir   string
	limit int64        // bytes
	room  func() error // an error where the file system is nearly full

	mu       sync.Mutex
	adding   map[update.Digest]bool // to the folder
	fetching map[update.Digest]int  // from others, by anyone on this node; see Fetching
}

// reserve is what stays free on the file system, in bytes.
const reserve = 16 << 20

// Open opens the folder, which it makes where it is not there, for so many bytes. room
// returns an error where the file system is nearly full.
func Open(dir string, limit int64, room func() error) (*Cache, error) {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the files for peers: %w", err)
	}
	c := &Cache{dir: dir, limit: limit, room: room, adding: map[update.Digest]bool{}, fetching: map[update.Digest]int{}}
	c.Trim()
	return c, nil
}

func (c *Cache) file(d update.Digest) string { return filepath.Join(c.dir, d.String()) }

// Get opens the file of a digest, or returns fs.ErrNotExist.
func (c *Cache) Get(d update.Digest) (*os.File, error) {
	now := time.Now()
	_ = os.Chtimes(c.file(d), now, now) // or it is not there
	return os.Open(c.file(d))
}

// Add implements [update.Cache].
func (c *Cache) Add(d update.Digest, size int64, fetch func(have io.Reader, w io.Writer) error) (update.CachedFile, error) {
	if f, err := c.Get(d); err == nil {
		return f, nil
	}
	if err := c.begin(d, size); err != nil {
		return nil, err
	}
	defer c.done(d)
	f, err := os.OpenFile(c.file(d)+partial, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", update.ErrNotKept, err)
	}
	if err := c.fill(f, d, size, fetch); err != nil {
		if errdefs.IsDataLoss(err) { // nothing of it is worth keeping
			err = errors.Join(err, os.Remove(f.Name()))
		}
		f.Close()
		return nil, err
	}
	return f, nil
}

// fill completes a file and gives it its name.
func (c *Cache) fill(f *os.File, d update.Digest, size int64, fetch func(have io.Reader, w io.Writer) error) error {
	at, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("%w: %w", update.ErrNotKept, err)
	}
	ended := c.Fetching(d, f)
	defer ended.Close()
	err = fetch(io.NewSectionReader(f, 0, at), ended)
	if at > 0 && errdefs.IsDataLoss(err) && !errors.Is(err, update.ErrPeer) { // a power failure may have kept its last bytes from the disk
		if err := f.Truncate(0); err != nil {
			return fmt.Errorf("%w: %w", update.ErrNotKept, err)
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("%w: %w", update.ErrNotKept, err)
		}
		err = fetch(strings.NewReader(""), ended)
	}
	if err != nil {
		if errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("%w: %w", update.ErrNotKept, errors.Join(err, os.Remove(f.Name())))
		}
		return err
	}
	sum := sha256.New()
	if n, err := io.Copy(sum, io.NewSectionReader(f, 0, size+1)); err != nil || n != size || update.Digest(sum.Sum(nil)) != d {
		return fmt.Errorf("%w: %s", update.ErrDamaged, d)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("%w: %w", update.ErrNotKept, err)
	}
	if err := durable.Rename(f.Name(), c.file(d)); err != nil {
		return fmt.Errorf("%w: %w", update.ErrNotKept, err)
	}
	return nil
}

// begin makes room for a file, and refuses one that does not fit or is on its way already.
func (c *Cache) begin(d update.Digest, size int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.adding[d] {
		return fmt.Errorf("%w: it is being stored", update.ErrNotKept)
	}
	if size > c.limit {
		return fmt.Errorf("%w: it has %d bytes, all files together may have %d", update.ErrNotKept, size, c.limit)
	}
	have := int64(0)
	if info, err := os.Stat(c.file(d) + partial); err == nil {
		have = info.Size()
	}
	c.adding[d] = true
	c.trim(max(size-have, 0))
	if err := c.full(max(size-have, 0)); err != nil {
		delete(c.adding, d)
		return fmt.Errorf("%w: %w", update.ErrNotKept, err)
	}
	return nil
}

func (c *Cache) done(d update.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.adding, d)
}

// full reports that the file system has no room for so many more bytes.
func (c *Cache) full(more int64) error {
	var s unix.Statfs_t
	if err := unix.Statfs(c.dir, &s); err == nil && int64(s.Bavail)*int64(s.Frsize) < more+reserve {
		return fmt.Errorf("the disk has %d bytes free, %d are needed", int64(s.Bavail)*int64(s.Frsize), more+reserve)
	}
	return c.room()
}

// Remove implements [update.Cache].
func (c *Cache) Remove(d update.Digest) { _ = os.Remove(c.file(d)) }

// Trim removes files until the others keep the limit and the file system has room.
func (c *Cache) Trim() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trim(0)
}

// kept is a file of the folder.
type kept struct {
	name string
	fs.FileInfo
}

// trim makes room for so many more bytes, as far as it can. The caller holds mu.
func (c *Cache) trim(more int64) {
	files, total := c.list()
	for _, f := range files {
		if total+more <= c.limit && c.full(more) == nil {
			return
		}
		if raw, err := hex.DecodeString(strings.TrimSuffix(f.name, partial)); err == nil && len(raw) == sha256.Size && c.adding[update.Digest(raw)] {
			continue
		}
		if os.Remove(filepath.Join(c.dir, f.name)) == nil {
			total -= f.Size()
		}
	}
}

// list returns the files, the least recently used first, and their bytes in total.
func (c *Cache) list() (files []kept, total int64) {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, 0
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			files, total = append(files, kept{e.Name(), info}), total+info.Size()
		}
	}
	slices.SortFunc(files, func(a, b kept) int { return cmp.Or(a.ModTime().Compare(b.ModTime()), cmp.Compare(a.name, b.name)) })
	return files, total
}

// Bytes is how much the files have together.
func (c *Cache) Bytes() int64 {
	_, total := c.list()
	return total
}

// Fetching passes what is written to w on. From the first byte until it is closed the file of the
// digest counts as on its way here: peers wait for it instead of fetching it too.
func (c *Cache) Fetching(d update.Digest, w io.Writer) io.WriteCloser {
	return &fetching{cache: c, digest: d, w: w}
}

type fetching struct {
	cache  *Cache
	digest update.Digest
	w      io.Writer
	begun  bool
}

func (f *fetching) Write(p []byte) (int, error) {
	if !f.begun {
		f.begun = true
		f.cache.count(f.digest, 1)
	}
	return f.w.Write(p)
}

func (f *fetching) Close() error {
	if f.begun {
		f.begun = false
		f.cache.count(f.digest, -1)
	}
	return nil
}

func (c *Cache) count(d update.Digest, by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fetching[d] += by; c.fetching[d] == 0 {
		delete(c.fetching, d)
	}
}

// onItsWay reports whether the file of a digest is being fetched.
func (c *Cache) onItsWay(d update.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fetching[d] > 0
}
