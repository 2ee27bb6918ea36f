package isolate

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// pressed writes what the kernel would show of a cgroup that stalled so long
// and met its memory limit so often.
func pressed(t *testing.T, root, group string, memory time.Duration, atLimit int) {
	t.Helper()
	dir := filepath.Join(root, group)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{
		"memory.pressure": fmt.Sprintf("some avg10=0.00 avg60=0.00 avg300=0.00 total=%d\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", memory.Microseconds()),
		"io.pressure":     "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
		"memory.events":   fmt.Sprintf("low 0\nhigh 0\nmax %d\noom 0\noom_kill 0\n", atLimit),
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Batch is not held back for a workload that thrashes at its own limit, and is
// for its neighbour that does not.
func TestStallsAtAnOwnLimitDoNotCount(t *testing.T) {
	root := t.TempDir()
	i := &Isolator{o: Options{Slice: "s"}, cg: &cgroups{dir: root}, held: map[string]*holding{}}
	for _, id := range []string{"full", "fine"} {
		i.held[id] = &holding{slice: "s", spec: Spec{ID: id, Class: Interactive}}
	}
	i.publish()
	look := func(class, full, fine time.Duration, atLimit int) time.Duration {
		pressed(t, root, "s/interactive", class, atLimit)
		pressed(t, root, "s/interactive/full", full, atLimit)
		pressed(t, root, "s/interactive/fine", fine, 0)
		total, _ := i.stalls.of(i)
		return total
	}
	if got := look(0, 0, 0, 0); got != 0 {
		t.Errorf("at rest: got %v", got)
	}
	if got := look(100*ms, 100*ms, 0, 5); got != 0 {
		t.Errorf("one is at its limit: got %v stalled, want 0", got)
	}
	if got := look(150*ms, 120*ms, 40*ms, 9); got != 40*ms {
		t.Errorf("its neighbour waits too: got %v, want 40ms", got)
	}
	if got := look(180*ms, 150*ms, 40*ms, 9); got != 70*ms {
		t.Errorf("it waits without being at its limit: got %v, want 70ms", got)
	}
}
