package isolate

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// maxFile bounds what is read of one kernel file.
const maxFile = 1 << 20

// cgroups writes the files of a cgroup hierarchy and remembers what it wrote.
type cgroups struct {
	dir string // where the hierarchy is mounted

	mu     sync.Mutex // of the map, never held while a file is read or written
	ledger map[string]*entry
}

// entry is a value that was written: as we wrote it, and as the kernel shows
// it. Its lock is held while the file is written and read again, so that Verify
// never takes our own write for someone else's.
type entry struct {
	mu           sync.Mutex
	written      bool
	wrote, shows string
}

// entry returns what is known of a file, which is not written yet if new.
func (c *cgroups) entry(group, file string) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := filepath.Join(group, file)
	if c.ledger[name] == nil {
		c.ledger[name] = &entry{}
	}
	return c.ledger[name]
}

// wrote returns what was last written to a file.
func (c *cgroups) wrote(group, file string) (string, bool) {
	c.mu.Lock()
	e := c.ledger[filepath.Join(group, file)]
	c.mu.Unlock()
	if e == nil {
		return "", false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.wrote, e.written
}

func (c *cgroups) path(parts ...string) string {
	return filepath.Join(append([]string{c.dir}, parts...)...)
}

func readFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxFile))
	return strings.TrimSpace(string(raw)), err
}

// writeFile writes a kernel file in one call; it makes none.
func writeFile(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("write %q to %s: %w", value, path, err)
	}
	return nil
}

// set writes a file of a cgroup and remembers it for Verify.
func (c *cgroups) set(group, file, value string) error {
	path, e := c.path(group, file), c.entry(group, file)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := writeFile(path, value); err != nil {
		return err
	}
	shows, err := readFile(path)
	if err != nil {
		return err
	}
	e.written, e.wrote, e.shows = true, value, shows
	return nil
}

// get reads a file of a cgroup.
func (c *cgroups) get(group, file string) (string, error) { return readFile(c.path(group, file)) }

// names lists the files that were set, sorted.
func (c *cgroups) names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.ledger))
}

// forget drops what was remembered of a cgroup.
func (c *cgroups) forget(group string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.ledger {
		if filepath.Dir(name) == group {
			delete(c.ledger, name)
		}
	}
}

// make makes a cgroup.
func (c *cgroups) make(group string) error {
	if err := os.Mkdir(c.path(group), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// remove removes a cgroup and those below it; none may hold a process.
func (c *cgroups) remove(group string) error {
	c.forget(group)
	entries, err := os.ReadDir(c.path(group))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := c.remove(filepath.Join(group, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(c.path(group)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// delegate gives the controllers to the children of a cgroup and returns those
// that it does not have.
func (c *cgroups) delegate(group string, controllers []string) (missing []string, err error) {
	text, err := c.get(group, "cgroup.controllers")
	if err != nil {
		return nil, err
	}
	given, err := c.get(group, "cgroup.subtree_control")
	if err != nil {
		return nil, err
	}
	for _, name := range controllers {
		switch {
		case !slices.Contains(strings.Fields(text), name):
			missing = append(missing, name)
		case slices.Contains(strings.Fields(given), name):
		default:
			if err := writeFile(c.path(group, "cgroup.subtree_control"), "+"+name); err != nil {
				return missing, err
			}
		}
	}
	return missing, nil
}

// numbers reads "key value" lines, as cpu.stat and memory.events have them.
func numbers(text string) map[string]uint64 {
	out := map[string]uint64{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		var n uint64
		if _, err := fmt.Sscanf(value, "%d", &n); err == nil {
			out[key] = n
		}
	}
	return out
}
