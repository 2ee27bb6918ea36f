package isolate

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/place"
)

// Signals come meanwhile, as Go's scheduler sends them to a thread that is long
// in the kernel.
func TestKernelHugePages(t *testing.T) {
	i, _ := open(t)
	const file = "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"
	before, err := numberIn(file)
	if err != nil {
		t.Skip("this kernel shows no huge pages of 2 MiB")
	}
	pool := func(want int64, when string) {
		t.Helper()
		if got, _ := numberIn(file); got != want {
			t.Errorf("%s: got %d huge pages, want %d", when, got, want)
		}
	}
	if err := i.Prepare(Spec{ID: "h", Class: Interactive, HugePages: []place.HugePages{{Size: 2 << 20, Bytes: 16 << 20}}}); err != nil {
		t.Fatal(err)
	}
	pool(before+8, "one asks for 8")
	shows(t, strconv.Itoa(16<<20), "oscine.slice/interactive/h/hugetlb.2MB.max")
	prepare(t, i, Spec{ID: "none", Class: Batch})
	shows(t, "0", "oscine.slice/batch/none/hugetlb.2MB.max")
	shows(t, "0", "oscine.slice/batch/none/hugetlb.2MB.rsvd.max")
	if err := i.Release("h"); err != nil {
		t.Fatal(err)
	}
	pool(before, "it went")

	// Pages that were set aside beforehand are given out, not added to.
	nodes, err := filepath.Glob("/sys/devices/system/node/node[0-9]*")
	if err != nil || len(nodes) == 0 {
		t.Fatalf("memory nodes: %v, %v", nodes, err)
	}
	underSignals(func() { err = ReserveHugePages("/", 2<<20, int64(len(nodes))*20<<20) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = writeFile("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0") }()
	pool(10, "10 are set aside")
	prepare(t, i, Spec{ID: "a", Class: Interactive, HugePages: []place.HugePages{{Size: 2 << 20, Bytes: 12 << 20}}})
	pool(10, "6 of them are given")
	if err := i.Prepare(Spec{ID: "b", Class: Interactive, HugePages: []place.HugePages{{Size: 2 << 20, Bytes: 12 << 20}}}); err != nil {
		t.Fatal(err)
	}
	pool(12, "12 are promised")
	if err := i.Release("b"); err != nil {
		t.Fatal(err)
	}
	pool(10, "the second went")
	if err := i.Prepare(Spec{ID: "h", Class: Interactive, HugePages: []place.HugePages{{Size: 2 << 20, Bytes: 1 << 40}}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a tebibyte of huge pages: got %v, want %v", err, ErrInvalid)
	}
	pool(10, "after a refusal")
	if err := ReserveHugePages("/", 3<<20, 3<<20); !errors.Is(err, ErrInvalid) {
		t.Errorf("pages of 3 MiB: got %v, want %v", err, ErrInvalid)
	}
}

// underSignals runs f on a thread that another sends signals to all the time.
func underSignals(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread := unix.Gettid()
	done := make(chan struct{})
	var sender sync.WaitGroup
	sender.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				_ = unix.Tgkill(os.Getpid(), thread, unix.SIGURG) // of no consequence
			}
		}
	})
	f()
	close(done)
	sender.Wait()
}

// Memory of real-time work: never reclaimed, never swapped, may be locked; and
// huge pages come only to those that ask for them.
func TestKernelMemoryIsHeld(t *testing.T) {
	i, _ := open(t)
	s := Spec{ID: "rt", Class: Realtime, CPUs: hardware.NewSet(2), MemoryNodes: hardware.NewSet(0), Memory: 32 << 20}
	prepare(t, i, s)
	shows(t, strconv.Itoa(32<<20), "oscine.slice/realtime/rt/memory.min")
	shows(t, "0", "oscine.slice/realtime/rt/memory.swap.max")
	shows(t, "0", "oscine.slice/realtime/rt/cpuset.mems")
	p := start(t, i, s, spinFor(ms))
	for resource, want := range map[int]uint64{unix.RLIMIT_MEMLOCK: unix.RLIM_INFINITY, unix.RLIMIT_RTPRIO: RealtimePriority} {
		var got unix.Rlimit
		if err := unix.Prlimit(p.PID, resource, nil, &got); err != nil || got.Cur != want {
			t.Errorf("limit %d: got %d %v, want %d", resource, got.Cur, err, want)
		}
	}
	text, err := readFile("/sys/kernel/mm/transparent_hugepage/enabled")
	if !errors.Is(err, fs.ErrNotExist) && (err != nil || chosen(text) != "madvise") { // a real-time kernel has none
		t.Errorf("transparent huge pages: got %q %v, want madvise", text, err)
	}
	model := Spec{ID: "model", Class: Interactive, Memory: 64 << 20, MemoryLow: 48 << 20}
	prepare(t, i, model)
	shows(t, strconv.Itoa(48<<20), "oscine.slice/interactive/model/memory.low")
	for _, group := range []string{"oscine.slice/interactive", "oscine.slice"} {
		text, err := i.cg.get(group, "memory.low")
		if low, _ := strconv.ParseInt(text, 10, 64); err != nil || low < 48<<20 {
			t.Errorf("%s protects %q %v of a model's %d", group, text, err, 48<<20)
		}
	}
	system, err := i.cg.get("oscine.slice/system", "memory.min")
	if least, _ := strconv.ParseInt(system, 10, 64); err != nil || least < 64<<20 {
		t.Errorf("memory.min of the system: got %q %v", system, err)
	}
	if mems, err := readFile("/proc/" + strconv.Itoa(p.PID) + "/status"); err != nil || !strings.Contains(mems, "Mems_allowed_list:\t0") {
		t.Errorf("its memory nodes: %v", err)
	}
}

// Memory lies on the nodes that placement chose, and moves with them.
func TestKernelMemoryMoves(t *testing.T) {
	i, _ := open(t)
	if !exists("/sys/devices/system/node/node1") {
		t.Skip("the guest has one memory node")
	}
	s := Spec{ID: "m", Class: Interactive, MemoryNodes: hardware.NewSet(0)}
	prepare(t, i, s)
	dir, err := unix.Open(i.Cgroup("m"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	child := exec.CommandContext(t.Context(), "/proc/self/exe", "hold")
	child.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: dir}
	input, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = input.Close()
		if err := child.Wait(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := output.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	for _, node := range []int{0, 1, 0} {
		s.MemoryNodes = hardware.NewSet(node)
		if err := i.Prepare(s); err != nil {
			t.Fatal(err)
		}
		shows(t, strconv.Itoa(node), "oscine.slice/interactive/m/cpuset.mems")
		on := anonymousPages(t, child.Process.Pid)
		t.Logf("bound to node %d: anonymous pages by node %v", node, on)
		if on[node]*4096 < held || on[1-node] > on[node]/10 {
			t.Errorf("bound to node %d it has pages by node %v", node, on)
		}
	}
}

// anonymousPages counts a process's anonymous pages by memory node.
func anonymousPages(t *testing.T, pid int) map[int]int {
	t.Helper()
	text, err := readFile("/proc/" + strconv.Itoa(pid) + "/numa_maps")
	if err != nil {
		t.Fatal(err)
	}
	pages := map[int]int{}
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "anon=") || strings.Contains(line, "file=") {
			continue
		}
		for _, field := range strings.Fields(line) {
			key, value, ok := strings.Cut(field, "=")
			if node, err := strconv.Atoi(strings.TrimPrefix(key, "N")); ok && err == nil {
				n, _ := strconv.Atoi(value)
				pages[node] += n
			}
		}
	}
	return pages
}
