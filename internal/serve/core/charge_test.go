package core_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/servetest"
)

// memoryGroup is a cgroup of the memory controller, of either version: where its
// processes are written and what its memory is counted in.
type memoryGroup struct{ procs, usage string }

func newMemoryGroup(t *testing.T) memoryGroup {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("skipped: making a cgroup needs root")
	}
	parent, usage := "/sys/fs/cgroup", "memory.current"
	if text, err := os.ReadFile("/sys/fs/cgroup/cgroup.subtree_control"); errors.Is(err, fs.ErrNotExist) {
		parent, usage = "/sys/fs/cgroup/memory", "memory.usage_in_bytes" // version 1
	} else if !strings.Contains(string(text), "memory") {
		if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+memory"), 0o644); err != nil {
			t.Skipf("skipped: this host gives no cgroup with the memory controller: %v", err)
		}
	}
	dir, err := os.MkdirTemp(parent, "oscine-test-")
	if err != nil {
		t.Skipf("skipped: this host gives no cgroup with the memory controller: %v", err)
	}
	t.Cleanup(func() {
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			err := os.Remove(dir) // once the worker is gone
			if err == nil || time.Now().After(end) {
				if err != nil {
					t.Error(err)
				}
				return
			}
		}
	})
	g := memoryGroup{filepath.Join(dir, "cgroup.procs"), filepath.Join(dir, usage)}
	if _, err := os.Stat(g.usage); err != nil {
		t.Skipf("skipped: this host gives no cgroup with the memory controller: %v", err)
	}
	return g
}

// bytes is what is charged to the group.
func (g memoryGroup) bytes(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile(g.usage)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// What a worker writes into slots of nobody's is charged to its own cgroup, not
// to the daemon's, and is gone with the worker's life: the next begins with what
// the first had.
func TestHostileWritesAreTheWorkers(t *testing.T) {
	group := newMemoryGroup(t)
	r := servetest.New(t)
	starter := servetest.Worker(t.TempDir(), "doubler")
	starter.Command = []string{"/bin/sh", "-c", `echo $$ > "$0" && exec "$@"`, group.procs, os.Args[0]}
	r.Serve(core.Model{Name: "m", Instances: core.One(starter)})
	r.Wait("m")
	for life := range 3 {
		if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, 1); err != nil {
			t.Fatal(err)
		}
		before, existed := group.bytes(t), sharedBytes(t)
		if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, servetest.Greedy); err != nil {
			t.Fatal(err)
		}
		written := sharedBytes(t) - existed
		if written < servetest.GreedyBytes {
			t.Fatalf("%d bytes were written, want %d", written, servetest.GreedyBytes)
		}
		const others = 8 << 20 // what the worker's own heap may grow or shrink by
		if charged := group.bytes(t) - before; charged < written-others {
			t.Errorf("life %d: %d bytes of %d are charged to the worker's cgroup", life, charged, written)
		}
		if _, err := r.Ask(t.Context(), core.Request{Model: "m"}, servetest.Poison); err == nil {
			t.Fatal("the worker was to die")
		}
		r.Wait("m")
		if left := group.bytes(t) - before; left > others {
			t.Errorf("life %d: %d bytes are still charged once the next worker runs", life, left)
		}
		if left := sharedBytes(t); left > existed {
			t.Errorf("life %d: %d bytes of shared memory exist, %d did before", life, left, existed)
		}
	}
}
