package isolate

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/place"
)

const (
	prompt   = 5 * time.Second // by when what waits for nothing has long ended
	nodePool = "sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"
)

// openTree opens a machine whose files are ordinary ones.
func openTree(t *testing.T, files map[string]string) (*Isolator, string) {
	t.Helper()
	names := []string{"sys/fs/cgroup/cgroup.controllers", "sys/fs/cgroup/cgroup.subtree_control", "sys/devices/system/cpu/online"}
	for _, group := range []string{"", "/system", "/realtime", "/interactive", "/batch"} {
		for _, file := range []string{"cgroup.controllers", "cgroup.subtree_control", "cpu.weight", "cpu.idle", "cpu.max", "cgroup.freeze", "memory.min", "memory.low", "memory.high",
			"memory.swap.max", "io.weight", "pids.max", "memory.pressure", "io.pressure", "cpuset.cpus.exclusive"} {
			names = append(names, "sys/fs/cgroup/oscine.slice"+group+"/"+file)
		}
	}
	for name := range files {
		names = append(names, name)
	}
	root := tree(t, names...)
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("sys/devices/system/cpu/online", "0-3")
	write("proc/meminfo", "MemTotal: 1048576 kB\n")
	for name, text := range files {
		write(name, text)
	}
	i, err := Open(Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	return i, root
}

// stuck makes a file that nobody can open for reading or writing until ready
// is called: it stands for a kernel that takes its time.
func stuck(t *testing.T, path string) (free func()) {
	t.Helper()
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return func() {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Error(err)
			return
		}
		time.AfterFunc(50*time.Millisecond, func() { _ = f.Close() }) // who reads finds the end, who writes has written
	}
}

// within fails where something waits for what is stuck.
func within(t *testing.T, what string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	select {
	case <-done:
	case <-time.After(prompt):
		t.Fatalf("%s waits for a file that is none of its business", what)
	}
}

// background starts something that gets stuck, and returns what waits for it.
func background(do func()) (wait func()) {
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	time.Sleep(20 * time.Millisecond)
	return func() { <-done }
}

// The guard comes every few milliseconds, whatever is being measured meanwhile.
func TestStatusHoldsNothingThatTheGuardNeeds(t *testing.T) {
	i, root := openTree(t, nil)
	if err := i.Prepare(Spec{ID: "w", Class: Interactive}); err != nil {
		t.Fatal(err)
	}
	free := stuck(t, filepath.Join(root, "sys/fs/cgroup/oscine.slice/interactive/w/cpu.stat"))
	wait := background(func() { _, _ = i.Status("w") })
	within(t, "the guard", func() { i.guardOnce(time.Now(), i.emit) })
	within(t, "another start", func() {
		if err := i.Prepare(Spec{ID: "other", Class: Batch}); err != nil {
			t.Error(err)
		}
	})
	free()
	wait()
}

// Looking after objectives reads the files of every thread.
func TestObservingHoldsNothingThatOthersNeed(t *testing.T) {
	i, root := openTree(t, nil)
	if err := i.Prepare(Spec{ID: "w", Class: Interactive}); err != nil {
		t.Fatal(err)
	}
	free := stuck(t, filepath.Join(root, "sys/fs/cgroup/oscine.slice/interactive/w/pids.events"))
	wait := background(i.observe)
	within(t, "the guard", func() { i.guardOnce(time.Now(), i.emit) })
	within(t, "a release", func() { _ = i.Release("w") })
	free()
	wait()
}

// A change may take long: readers and the guard see what held before it.
func TestChangesHoldNothingThatReadersNeed(t *testing.T) {
	i, root := openTree(t, nil)
	if err := i.Prepare(Spec{ID: "rt", Class: Batch}); err != nil {
		t.Fatal(err)
	}
	free := stuck(t, filepath.Join(root, "sys/fs/cgroup/oscine.slice/interactive/memory.low"))
	wait := background(func() { _ = i.Prepare(Spec{ID: "slow", Class: Interactive, MemoryLow: 1 << 20}) })
	within(t, "the guard", func() { i.guardOnce(time.Now(), i.emit) })
	within(t, "Status", func() {
		if _, err := i.Status("rt"); err != nil {
			t.Error(err)
		}
	})
	within(t, "Gaps", func() { i.Gaps() })
	within(t, "Reserved", func() { i.Reserved() })
	within(t, "Cgroup", func() { i.Cgroup("rt") })
	free()
	wait()
}

// The kernel may look for huge pages for seconds.
func TestHugePagesAreSetAsideBesideOtherChanges(t *testing.T) {
	i, root := openTree(t, map[string]string{nodePool: "0"})
	free := stuck(t, filepath.Join(root, nodePool))
	huge := Spec{ID: "huge", Class: Interactive, HugePages: []place.HugePages{{Size: 2 << 20, Bytes: 4 << 20}}}
	wait := background(func() { _ = i.Prepare(huge) })
	within(t, "another start", func() {
		if err := i.Prepare(Spec{ID: "w", Class: Interactive}); err != nil {
			t.Error(err)
		}
	})
	within(t, "its end", func() {
		if err := i.Release("w"); err != nil {
			t.Error(err)
		}
	})
	within(t, "the guard", func() { i.guardOnce(time.Now(), i.emit) })
	free()
	wait()
}

// What is set aside goes with the workload, or with the start that failed.
func TestHugePagesComeAndGoWithTheirWorkload(t *testing.T) {
	i, root := openTree(t, map[string]string{nodePool: "1"})
	pool := func(want, when string) {
		t.Helper()
		raw, err := os.ReadFile(filepath.Join(root, nodePool))
		if err != nil || strings.TrimSpace(string(raw)) != want {
			t.Errorf("%s: got %q %v, want %s", when, raw, err, want)
		}
	}
	spec := func(id string, mib ...int64) Spec {
		s := Spec{ID: id, Class: Interactive}
		for _, n := range mib {
			s.HugePages = append(s.HugePages, place.HugePages{Size: 2 << 20, Bytes: n << 20})
		}
		return s
	}
	hold := func(s Spec) {
		t.Helper()
		if err := i.Prepare(s); err != nil {
			t.Fatal(err)
		}
	}
	hold(spec("a", 4, 4))
	pool("4", "one of the four was there")
	hold(spec("a", 4, 4))
	pool("4", "asked for again")
	hold(spec("b", 2))
	pool("5", "two hold")
	hold(spec("b", 6))
	pool("7", "the second asks for more")
	taken := spec("c", 2)
	taken.CPUs, taken.Exclusive = hardware.NewSet(9), true
	if err := i.Prepare(taken); err == nil {
		t.Error("CPU 9 is not there")
	}
	pool("7", "a start failed")
	for _, id := range []string{"b", "c", "a", "a"} {
		if err := i.Release(id); err != nil {
			t.Error(err)
		}
	}
	pool("1", "all went")
	if p := &i.pages; len(p.promised)+len(p.grants) != 0 {
		t.Errorf("left: %v %v", p.promised, p.grants)
	}
}

// Events go to a journal: the guard does not wait for the disk with them, and
// none is lost.
func TestNewsHoldUpNobody(t *testing.T) {
	i, _ := openTree(t, nil)
	disk := make(chan struct{})
	var told []string
	i.o.OnEvent = func(e Event) {
		<-disk
		told = append(told, e.Message)
	}
	n := i.newNews()
	within(t, "the guard", func() {
		for _, message := range []string{"one", "two"} {
			n.add([]Event{{Message: message}})
			n.add(nil)
		}
	})
	close(disk)
	n.close()
	if !slices.Equal(told, []string{"one", "two"}) {
		t.Errorf("told %q", told)
	}
}
