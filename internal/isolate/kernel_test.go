package isolate

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/bench/guest/guesttest"
	"oscine.dev/oscine/internal/bench/latency"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/linux"
)

// events collects what an isolator tells.
type events struct {
	mu  sync.Mutex
	all []Event
}

func (e *events) add(one Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, one)
}

func (e *events) has(reason, id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.ContainsFunc(e.all, func(x Event) bool { return x.Reason == reason && x.ID == id })
}

func open(t *testing.T) (*Isolator, *events) {
	t.Helper()
	guesttest.NeedGuest(t)
	seen := &events{}
	i, err := Open(Options{Own: true, OnEvent: seen.add})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	})
	return i, seen
}

func prepare(t *testing.T, i *Isolator, s Spec) {
	t.Helper()
	if err := i.Prepare(s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Release(s.ID); err != nil {
			t.Error(err)
		}
	})
}

func shows(t *testing.T, want string, file ...string) {
	t.Helper()
	got, err := readFile(filepath.Join(append([]string{"/sys/fs/cgroup"}, file...)...))
	if err != nil || got != want {
		t.Errorf("%s: got %q %v, want %q", filepath.Join(file...), got, err, want)
	}
}

// start runs a load or worker in a workload's cgroup.
func start(t *testing.T, i *Isolator, s Spec, task latency.Child) *latency.Process {
	t.Helper()
	p, err := latency.Start(t.Context(), []string{"/proc/self/exe", "child"}, "/sys/fs/cgroup"+CgroupPath(s.Class, s.ID), task)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	if err := i.Apply(s.ID, p.PID); err != nil {
		t.Fatal(err)
	}
	if err := p.Begin(); err != nil {
		t.Fatal(err)
	}
	return p
}

func spin(threads int) latency.Child {
	return latency.Child{Load: &latency.Load{Threads: threads}}
}

// spinFor is for real-time work, which may leave nobody time to end it.
func spinFor(d time.Duration) latency.Child {
	return latency.Child{Load: &latency.Load{Threads: 1, Duration: d}}
}

func TestKernelSlicesAreSet(t *testing.T) {
	i, _ := open(t)
	for _, g := range i.Gaps() {
		t.Errorf("gap: %v", g)
	}
	shows(t, "1", "oscine.slice/batch/cpu.idle")
	shows(t, "1000", "oscine.slice/interactive/cpu.weight")
	shows(t, "10000", "oscine.slice/realtime/cpu.weight")
	shows(t, "32768", "oscine.slice/batch/pids.max")
	total := i.host.memoryTotal()
	text, err := i.cg.get("oscine.slice/batch", "memory.high")
	high, _ := strconv.ParseInt(text, 10, 64)
	if err != nil || high < total/2 || high >= total {
		t.Errorf("memory.high of batch: got %q %v of %d", text, err, total)
	}
	if preempt, err := readFile("/sys/kernel/debug/sched/preempt"); err == nil && !strings.Contains(preempt, "(full)") {
		t.Errorf("preemption: got %q, want full", preempt)
	}
	self, err := readFile("/proc/self/cgroup")
	if err != nil || self != "0::/oscine.slice/system/oscined" {
		t.Errorf("this process is in %q %v", self, err)
	}
}

// Limits of the Machine file take the place of the defaults.
func TestKernelSlicesAreLimited(t *testing.T) {
	guesttest.NeedGuest(t)
	i, err := Open(Options{Own: true, Slices: Slices{
		System:      SliceLimits{MemoryMin: 96 << 20},
		Interactive: SliceLimits{CPUWeight: 700, IOWeight: 300, MemoryLow: 128 << 20},
		Batch:       SliceLimits{MemoryHigh: 512 << 20, PIDs: 1000},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		again, err := Open(Options{Own: true}) // the defaults, for the tests that follow
		if err := errors.Join(err, i.Close()); err != nil {
			t.Fatal(err)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}()
	shows(t, strconv.Itoa(96<<20), "oscine.slice/system/memory.min")
	shows(t, "700", "oscine.slice/interactive/cpu.weight")
	shows(t, "default 300", "oscine.slice/interactive/io.weight")
	shows(t, strconv.Itoa(128<<20), "oscine.slice/interactive/memory.low")
	shows(t, strconv.Itoa(512<<20), "oscine.slice/batch/memory.high")
	shows(t, "1000", "oscine.slice/batch/pids.max")
}

func TestKernelBatchYields(t *testing.T) {
	i, _ := open(t)
	one := hardware.NewSet(1)
	batch := Spec{ID: "b", Class: Batch, CPUs: one}
	inter := Spec{ID: "i", Class: Interactive, CPUs: one, MilliCPU: 1000}
	prepare(t, i, batch)
	prepare(t, i, inter)
	low, high := start(t, i, batch, spin(2)), start(t, i, inter, spin(1))
	had := during(t, i, 2*time.Second, batch.ID, inter.ID)
	var report latency.LoadReport
	if err := errors.Join(high.End(&report), low.End(&report)); err != nil {
		t.Fatal(err)
	}
	t.Logf("of a CPU that interactive work wanted whole batch had %v, interactive %v", had[0], had[1])
	if had[1] < 10*had[0] {
		t.Errorf("batch had %v, interactive %v", had[0], had[1])
	}
	if had[1] < time.Second {
		t.Errorf("interactive work had %v of 2 s", had[1])
	}
}

// during waits and returns the processor time that each of the workloads had
// meanwhile, whatever they had before.
func during(t *testing.T, i *Isolator, wait time.Duration, ids ...string) []time.Duration {
	t.Helper()
	used := func() []time.Duration {
		var all []time.Duration
		for _, id := range ids {
			st, err := i.Status(id)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, time.Duration(st.CPUTime))
		}
		return all
	}
	before := used()
	time.Sleep(wait)
	after := used()
	for n := range after {
		after[n] -= before[n]
	}
	return after
}

// An isolated CPU runs its workload and nothing else: by what the kernel shows
// and by what spinners elsewhere can reach.
func TestKernelRealtimePartition(t *testing.T) {
	i, _ := open(t)
	free, err := readFile("/sys/fs/cgroup/cpuset.cpus.effective")
	if err != nil {
		t.Fatal(err)
	}
	s := Spec{ID: "rt", Class: Realtime, CPUs: hardware.NewSet(3), Memory: 64 << 20}
	if err := i.Prepare(s); err != nil {
		t.Fatal(err)
	}
	shows(t, "3", "oscine.slice/realtime/rt/cpuset.cpus.effective")
	shows(t, "isolated", "oscine.slice/realtime/rt/cpuset.cpus.partition")
	shows(t, "3", "cpuset.cpus.isolated")
	shows(t, "67108864", "oscine.slice/realtime/rt/memory.min")
	shows(t, "67108864", "oscine.slice/realtime/memory.min")
	shows(t, "0", "oscine.slice/realtime/rt/memory.swap.max")
	if got, err := readFile("/sys/devices/system/cpu/cpu3/power/pm_qos_resume_latency_us"); err == nil && got != "n/a" {
		t.Errorf("CPU 3 may sleep: %q", got)
	}
	noInterrupts(t, i, s.CPUs)
	noKernelThreads(t, s.CPUs)
	p := start(t, i, s, spinFor(2*time.Second))
	sched, err := linux.GetScheduling(p.PID)
	if err != nil || sched.Policy != linux.PolicyFIFO || sched.Priority != RealtimePriority {
		t.Errorf("got %+v %v, want FIFO %d", sched, err, RealtimePriority)
	}
	if slack, err := readFile("/proc/" + strconv.Itoa(p.PID) + "/timerslack_ns"); err != nil || slack != "0" && slack != "1" {
		t.Errorf("timer slack: got %q %v", slack, err)
	}
	batch := Spec{ID: "b", Class: Batch}
	prepare(t, i, batch)
	start(t, i, batch, spin(8))
	time.Sleep(500 * time.Millisecond)
	st, err := i.Status("rt")
	if err != nil {
		t.Fatal(err)
	}
	for _, promise := range st.Promises {
		if !promise.Held {
			t.Errorf("not held: %+v", promise)
		}
	}
	onlyOn(t, p.PID, s.CPUs)
	var report latency.LoadReport
	if err := p.Wait(&report); err != nil {
		t.Fatal(err)
	}
	share := float64(report.CPUTime) / float64(report.Elapsed)
	t.Logf("the real-time spinner had %.1f %% of its own CPU beside eight batch spinners", share*100)
	if share < 0.9 { // the kernel may keep 5 % for ordinary tasks
		t.Errorf("the real-time spinner had %.1f %% of its own CPU, want 90 or more", share*100)
	}
	if err := i.Release("rt"); err != nil {
		t.Fatal(err)
	}
	shows(t, free, "cpuset.cpus.effective")
	shows(t, "", "cpuset.cpus.isolated")
	if got, err := readFile("/proc/irq/default_smp_affinity"); err != nil || got != "f" {
		t.Errorf("default affinity of interrupts: got %q %v, want f", got, err)
	}
}

// onlyOn checks that no process but pid may run, or has run, on the CPUs.
func onlyOn(t *testing.T, pid int, cpus hardware.Set) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := readFile(file)
		if err != nil || strings.Contains(text, "\nKthread:\t1") || filepath.Dir(file) == "/proc/"+strconv.Itoa(pid) {
			continue
		}
		_, list, _ := strings.Cut(text, "Cpus_allowed_list:")
		list, _, _ = strings.Cut(list, "\n")
		if allowed, err := hardware.ParseList(strings.TrimSpace(list)); err == nil && allowed.Meets(cpus) {
			name, _, _ := strings.Cut(text, "\n")
			t.Errorf("%s of %s may run on CPU %s", name, file, cpus)
		}
	}
}

func noInterrupts(t *testing.T, i *Isolator, cpus hardware.Set) {
	t.Helper()
	moved, fixed := 0, i.interruptsOn(cpus)
	files, err := filepath.Glob("/proc/irq/*/smp_affinity_list")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if home, err := readList(file); err == nil && !home.Meets(cpus) {
			moved++
		}
	}
	t.Logf("%d of %d interrupts moved; still on CPU %s: %v", moved, len(files), cpus, fixed)
	if moved == 0 || len(fixed) > 2 {
		t.Errorf("%d interrupts moved, %v still on CPU %s", moved, fixed, cpus)
	}
}

func noKernelThreads(t *testing.T, cpus hardware.Set) {
	t.Helper()
	i := &Isolator{host: host{root: "/"}}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		flags, ok := i.taskFlags(pid)
		if !ok || flags&kernelThread == 0 || flags&fixedThread != 0 {
			continue
		}
		var have unix.CPUSet
		if unix.SchedGetaffinity(pid, &have) != nil {
			continue
		}
		for _, cpu := range cpus.IDs() {
			if have.IsSet(cpu) {
				name, _ := readFile("/proc/" + e.Name() + "/comm")
				t.Errorf("kernel thread %s may run on CPU %d", name, cpu)
			}
		}
	}
}

func TestKernelRefusesWhatBreaksPromises(t *testing.T) {
	i, _ := open(t)
	prepare(t, i, Spec{ID: "one", Class: Realtime, CPUs: hardware.NewSet(1, 2)})
	for _, c := range []struct {
		spec Spec
		want error
	}{
		{Spec{ID: "two", Class: Realtime, CPUs: hardware.NewSet(2, 3)}, ErrTaken},
		{Spec{ID: "two", Class: Realtime, CPUs: hardware.NewSet(0, 3)}, ErrNoHousekeeping},
		{Spec{ID: "two", Class: Realtime, CPUs: hardware.NewSet(99)}, ErrInvalid},
		{Spec{ID: "two", Class: Realtime}, ErrInvalid},
		{Spec{ID: "../x", Class: Batch}, ErrInvalid},
		{Spec{ID: "two", Class: "fast"}, ErrInvalid},
		{Spec{ID: "two", Class: Batch, Deadline: &Reservation{ms, ms, ms}}, ErrInvalid},
		{Spec{ID: "two", Class: Realtime, CPUs: hardware.NewSet(3), Deadline: &Reservation{5 * ms, 5 * ms, 5 * ms}}, ErrOverCommitted},
	} {
		if err := i.Prepare(c.spec); !errors.Is(err, c.want) {
			t.Errorf("%+v: got %v, want %v", c.spec, err, c.want)
		}
	}
	if exists("/sys/fs/cgroup" + CgroupPath(Realtime, "two")) {
		t.Error("a refused workload has a cgroup")
	}
	shows(t, "1-2", "oscine.slice/realtime/cpuset.cpus.exclusive")
}
