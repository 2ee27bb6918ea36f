package isolate

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMemoryLimitIsTheLeastOfAll(t *testing.T) {
	for _, c := range []struct {
		name, cgroup string
		files        map[string]string
		want         int64
	}{
		{"no cgroups", "", nil, 1 << 30},
		{"version 1", "4:memory:/x\n", map[string]string{"x/memory.max": "5"}, 1 << 30},
		{"no limit", "0::/oscine.slice/system/oscined\n", map[string]string{"oscine.slice/system/memory.max": "max"}, 1 << 30},
		{"above it", "0::/oscine.slice/system/oscined\n", map[string]string{"oscine.slice/system/memory.high": "5000", "oscine.slice/memory.max": "6000"}, 5000},
		{"its own", "1:name=systemd:/\n0::/a\n", map[string]string{"a/memory.max": "7000", "a/memory.high": "max"}, 7000},
		{"more than there is", "0::/a\n", map[string]string{"a/memory.max": "99999999999"}, 1 << 30},
		{"the root", "0::/\n", nil, 1 << 30},
	} {
		root := tree(t)
		write := func(name, text string) {
			path := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("proc/meminfo", "MemTotal: 1048576 kB\n")
		write("proc/self/cgroup", c.cgroup)
		for name, text := range c.files {
			write(filepath.Join("sys/fs/cgroup", name), text)
		}
		if got := MemoryLimit(root); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}

// The daemon and its shims are bounded too, on small machines without leaving
// them too little.
func TestSystemClassIsBounded(t *testing.T) {
	for memory, want := range map[int64]int64{512 << 20: 384 << 20, 1 << 30: 384 << 20, 4 << 30: 1 << 30, 64 << 30: 16 << 30} {
		if got := (Slices{}).withDefaults(memory).System.MemoryHigh; got != want {
			t.Errorf("of %d MiB: got %d MiB, want %d", memory>>20, got>>20, want>>20)
		}
	}
	if got := (Slices{System: SliceLimits{MemoryHigh: 5}}).withDefaults(1 << 30).System.MemoryHigh; got != 5 {
		t.Errorf("the Machine file's limit: got %d, want 5", got)
	}
}
