package isolate

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxFile bounds what is read of one kernel file.
const maxFile = 1 << 20

// cgroups writes the files of a cgroup hierarchy and remembers what it wrote.
type cgroups struct {
	dir    string // where the hierarchy is mounted
	ledger map[string]entry
}

// entry is a value that was written: as we wrote it, and as the kernel shows
// it.
type entry struct{ wrote, shows string }

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
	path := c.path(group, file)
	if err := writeFile(path, value); err != nil {
		return err
	}
	shows, err := readFile(path)
	if err != nil {
		return err
	}
	c.ledger[filepath.Join(group, file)] = entry{value, shows}
	return nil
}

// get reads a file of a cgroup.
func (c *cgroups) get(group, file string) (string, error) { return readFile(c.path(group, file)) }

// forget drops what was remembered of a cgroup.
func (c *cgroups) forget(group string) {
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
