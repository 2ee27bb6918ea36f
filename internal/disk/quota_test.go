package disk

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// counting is a file system in memory that counts projects as ext4 does: a folder
// may grow up to its bound, and the file system has a fixed number of inodes.
type counting struct {
	size    Amount
	folders map[string]Amount
	bounds  map[string]Amount
	system  Amount // of root, which no bound holds
}

func (c *counting) enforces() bool     { return true }
func (c *counting) claim(string) error { return nil }

func (c *counting) bound(dir string, limit Amount) error {
	c.bounds[dir] = limit
	return nil
}

func (c *counting) used(dir string) (Amount, error) { return c.folders[dir], nil }

func (c *counting) space() (Space, error) {
	free := Amount{c.size.Bytes - c.system.Bytes, c.size.Inodes - c.system.Inodes}
	for _, f := range c.folders {
		free.Bytes -= f.Bytes
		free.Inodes -= f.Inodes
	}
	return Space{c.size, free}, nil
}

// fill makes files of one block in a folder, up to so many, and returns how many
// the kernel let it.
func (c *counting) fill(dir string, want int64) int64 {
	now, _ := c.space()
	made := min(want, now.Free.Inodes, now.Free.Bytes/4096)
	f, bound := c.folders[dir], c.bounds[dir]
	if bound.Inodes > 0 {
		made = min(made, max(bound.Inodes-f.Inodes, 0))
	}
	if bound.Bytes > 0 {
		made = min(made, max(bound.Bytes-f.Bytes, 0)/4096)
	}
	c.folders[dir] = Amount{f.Bytes + made*4096, f.Inodes + made}
	return made
}

func newCounting(t *testing.T, limits map[string]int64) (*Disk[string], *counting) {
	t.Helper()
	c := &counting{size: Amount{1 << 30, 16384}, folders: map[string]Amount{}, bounds: map[string]Amount{}, system: Amount{100 << 20, 2000}}
	d := &Disk[string]{fs: c, folders: map[string]*folder[string]{}}
	for name, limit := range limits {
		c.folders[name] = Amount{4096, 1}
		if err := d.Claim(name, "volume "+name, name, limit); err != nil {
			t.Fatal(err)
		}
	}
	return d, c
}

// A volume holds as many files as its size has room for, and says what is full.
func TestVolumeIsBoundInFiles(t *testing.T) {
	d, c := newCounting(t, map[string]int64{"small": 1 << 20})
	c.folders["small"] = Amount{4096, leastFiles}
	if made := c.fill("small", 1); made != 0 {
		t.Error("a volume of 1 MiB took more files than there are")
	}
	events, err := d.Look()
	held := d.Held("small")
	if err != nil || len(events) != 1 || events[0].Owner != "small" || !strings.Contains(held[0].Problem, "1024 of 1024 files") {
		t.Errorf("got %+v, %v and %+v, want the full volume named", events, err, held)
	}
}

// Those who make files without end take neither the reserve of inodes nor what
// others need, however fast and however many they are.
func TestInodesAreKept(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		greedy := []string{"a", "b", "c", "d"}[:1+random.IntN(4)]
		limits := map[string]int64{"calm": 64 << 20}
		for _, name := range greedy {
			limits[name] = int64(random.IntN(2)) * 256 << 20
		}
		d, c := newCounting(t, limits)
		held := map[string]bool{}
		for range 200 {
			for _, name := range greedy {
				c.fill(name, 1<<20)
			}
			now, _ := c.space()
			if keep := reserve(now.Size); now.Free.Inodes < keep.Inodes {
				t.Fatalf("seed %d: %d inodes are left, less than the reserve of %d", seed, now.Free.Inodes, keep.Inodes)
			}
			events, err := d.Look()
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				held[e.Owner] = e.Reason == reasonFull
			}
		}
		if held["calm"] || len(held) == 0 {
			t.Errorf("seed %d: held are %v, want some of those who fill the disk", seed, held)
		}
		if err := d.Room(); err == nil || !strings.Contains(err.Error(), "files free") {
			t.Errorf("seed %d: got %v, want a refusal that names the files", seed, err)
		}
		if made := c.fill("calm", 10); made == 0 {
			t.Errorf("seed %d: the one that holds little can make no file", seed)
		}
		for _, name := range greedy {
			c.folders[name] = Amount{4096, 1}
		}
		if _, err := d.Look(); err != nil {
			t.Fatal(err)
		}
		if err := d.Room(); err != nil {
			t.Errorf("seed %d: after the files were removed: %v", seed, err)
		}
		for _, name := range greedy {
			if made := c.fill(name, 100); made != 100 {
				t.Errorf("seed %d: %s made %d of 100 files though there is room", seed, name, made)
			}
		}
	}
}
