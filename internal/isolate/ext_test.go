package isolate

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/bench/guest/guesttest"
	"oscine.dev/oscine/internal/bench/latency"
	"oscine.dev/oscine/internal/bpf"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/isolate/schedext"
	"oscine.dev/oscine/internal/linux"
)

// openExt opens an isolator with the second back end.
func openExt(t *testing.T) (*Isolator, *events) {
	t.Helper()
	guesttest.NeedGuest(t)
	if _, err := schedext.State(); err != nil {
		t.Skip(err)
	}
	seen := &events{}
	i, err := Open(Options{Own: true, SchedExt: true, OnEvent: seen.add})
	if err != nil {
		t.Fatal(err)
	}
	if i.ext.Load() == nil {
		gaps := fmt.Sprint(i.Gaps())
		if strings.Contains(gaps, bpf.ErrNotBuilt.Error()) {
			t.Skip(gaps)
		}
		t.Fatalf("it did not start: %s", gaps)
	}
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
		if state, err := schedext.State(); err != nil || state != "disabled" {
			t.Errorf("after Close: got %q %v", state, err)
		}
	})
	return i, seen
}

// The second back end runs the same classes, and stops on request.
func TestKernelSchedExt(t *testing.T) {
	i, _ := openExt(t)
	me := []int{unix.Gettid()}
	if err := errors.Join(i.Priority("x").Raise(me, time.Second), i.Priority("x").Lower(me)); err != nil {
		t.Error(err)
	}
	one := hardware.NewSet(1)
	batch, inter := Spec{ID: "b", Class: Batch, CPUs: one}, Spec{ID: "i", Class: Interactive, CPUs: one}
	prepare(t, i, batch)
	prepare(t, i, inter)
	load := start(t, i, batch, latency.Child{Load: &latency.Load{Threads: 2, Kinds: []string{"cpu", "syscall"}}})
	worker := start(t, i, inter, latency.Child{Worker: &latency.Worker{Duration: 2 * time.Second, Work: time.Millisecond}})
	var w latency.WorkerReport
	var l latency.LoadReport
	if err := errors.Join(worker.Wait(&w), load.End(&l)); err != nil {
		t.Fatal(err)
	}
	t.Logf("beside two threads of batch: wake-ups p50 %v, p95 %v, p99 %v, max %v of %d; batch had %.0f %% of the CPU",
		w.Histogram.Quantile(.5), w.Histogram.Quantile(.95), w.Histogram.Quantile(.99), w.Histogram.Max(), w.Histogram.Count(), 100*float64(l.CPUTime)/float64(l.Elapsed))
	// Batch that is not interrupted delays most of them by its slices. The last few
	// belong to the host, which may give the guest's processors to others.
	if n, p95 := w.Histogram.Count(), w.Histogram.Quantile(.95); n < 300 || p95 > 2*time.Millisecond {
		t.Errorf("%d wake-ups with p95 %v, want 398 within 2 ms: batch was not interrupted", n, p95)
	}
	if l.Units == 0 {
		t.Error("batch had nothing")
	}
	if !i.ext.Load().Running() {
		t.Errorf("the kernel took the scheduler out: %s", i.ext.Load().Verdict())
	}
}

// Batch on every CPU, many threads of all classes, and interactive work that
// leaves batch nothing: everybody runs in the end.
func TestKernelSchedExtStarvesNobody(t *testing.T) {
	i, _ := openExt(t)
	batch, inter := Spec{ID: "b", Class: Batch}, Spec{ID: "i", Class: Interactive}
	prepare(t, i, batch)
	prepare(t, i, inter)
	load := start(t, i, batch, latency.Child{Load: &latency.Load{Threads: 100, Kinds: []string{"cpu", "syscall"}}})
	hungry := start(t, i, inter, latency.Child{Load: &latency.Load{Threads: 16}})
	had := during(t, i, 8*time.Second, batch.ID, inter.ID) // the watchdog's patience is 5 s
	var report latency.LoadReport
	if err := errors.Join(hungry.End(&report), load.End(&report)); err != nil {
		t.Fatal(err)
	}
	t.Logf("batch had %v, interactive %v of processor time", had[0], had[1])
	if had[0] == 0 || had[1] < 10*had[0] {
		t.Errorf("batch had %v, interactive %v of processor time", had[0], had[1])
	}
	if !i.ext.Load().Running() {
		t.Errorf("the kernel took the scheduler out: %s", i.ext.Load().Verdict())
	}
}

// Whatever ends the scheduler, all continue under the stock one, and an event says so.
func TestKernelSchedExtTakenOutIsTold(t *testing.T) {
	i, seen := openExt(t)
	s := i.ext.Load()
	if err := os.WriteFile("/proc/sysrq-trigger", []byte("S"), 0); err != nil {
		t.Skipf("needs the system request that resets sched_ext: %v", err)
	}
	waitTakenOut(t, s)
	i.Verify()
	if !seen.has(ReasonBroken, "") {
		t.Error("no event reports it")
	}
	gaps := fmt.Sprint(i.Gaps())
	t.Log(gaps)
	if !strings.Contains(gaps, "the stock scheduler does its work") || !strings.Contains(gaps, "sysrq") {
		t.Errorf("the gaps do not say it: %s", gaps)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := i.Priority("x").Raise([]int{unix.Gettid()}, time.Millisecond); err != nil {
		t.Errorf("urgency under the stock scheduler: %v", err)
	}
	if got, err := linux.GetScheduling(0); err != nil || got.Policy != linux.PolicyFIFO {
		t.Errorf("got %+v %v", got, err)
	}
	if err := i.Priority("x").Lower([]int{unix.Gettid()}); err != nil {
		t.Error(err)
	}
}

// A task that gets no processor for longer than the watchdog's patience ends
// the scheduler, here by a real-time spinner that the kernel was told never to
// hold back.
func TestKernelSchedExtStallIsTold(t *testing.T) {
	i, seen := openExt(t)
	if err := os.WriteFile("/proc/sys/kernel/sched_rt_runtime_us", []byte("-1"), 0); err != nil {
		t.Skip(err)
	}
	s, one := i.ext.Load(), hardware.NewSet(1)
	inter := Spec{ID: "i", Class: Interactive, CPUs: one}
	prepare(t, i, inter)
	starved := start(t, i, inter, spin(2))
	spinner, err := latency.Start(t.Context(), []string{"/proc/self/exe", "child"}, "", latency.Child{Load: &latency.Load{
		Threads: 1, CPU: 2, Duration: 9 * time.Second, Policy: linux.Scheduling{Policy: linux.PolicyFIFO, Priority: 99}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := spinner.Begin(); err != nil {
		t.Fatal(err)
	}
	var l, v latency.LoadReport
	if err := errors.Join(spinner.Wait(&v), starved.End(&l)); err != nil {
		t.Fatal(err)
	}
	t.Logf("the spinner had %v, beside it %v", v.CPUTime, l.CPUTime)
	if s.Running() {
		t.Skip("this kernel's deadline server kept the task alive, nothing stalled")
	}
	i.Verify()
	t.Log(i.Gaps())
	if !seen.has(ReasonBroken, "") || !strings.Contains(fmt.Sprint(i.Gaps()), "stall") {
		t.Error("no event reports the stall")
	}
}

func waitTakenOut(t *testing.T, s *schedext.Scheduler) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); s.Running(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it still runs")
		}
	}
}

// A daemon that is killed leaves its scheduler pinned; the next one starts its
// own in its place.
func TestKernelSchedExtOutlivesTheDaemon(t *testing.T) {
	const mark = "OSCINE_EXT_DAEMON"
	if os.Getenv(mark) == "1" {
		openExt(t)
		fmt.Println("open")
		select {} // until it is killed
	}
	guesttest.NeedGuest(t)
	daemon := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$")
	daemon.Env = append(os.Environ(), mark+"=1")
	out, err := daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "open\n" {
		t.Skipf("the first daemon did not start the scheduler: %q %v", line, err)
	}
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = daemon.Wait()
	if state, err := schedext.State(); err != nil || state != "enabled" {
		t.Errorf("after its daemon was killed: got %q %v", state, err)
	}
	i, _ := openExt(t)
	if !i.ext.Load().Running() {
		t.Error("the second scheduler does not run")
	}
}

func TestDomainsLieByNUMANode(t *testing.T) {
	node := 0
	m := &hardware.Machine{
		Caches: []hardware.Cache{
			{Level: 1, CPUs: hardware.NewSet(0)}, {Level: 2, CPUs: hardware.NewSet(0, 1)},
			{Level: 3, CPUs: hardware.NewSet(0, 1, 2, 3)}, {Level: 3, CPUs: hardware.NewSet(8, 9)}, {Level: 3, CPUs: hardware.NewSet(4, 5, 6, 7)},
			{Level: 2, CPUs: hardware.NewSet(10, 11)}, // cores without a third level
			{Level: 4, CPUs: hardware.NewSet(0, 1, 2, 3, 4, 5), Node: &node},
		},
		Nodes: []hardware.Node{{ID: 0, Own: hardware.NewSet(0, 1, 2, 3, 8, 9, 10, 11)}, {ID: 1, Own: hardware.NewSet(4, 5, 6, 7)}},
	}
	want := [][]int{{0, 1, 2, 3}, {8, 9}, {10, 11}, {4, 5, 6, 7}}
	if diff := cmp.Diff(want, domains(m)); diff != "" {
		t.Error(diff)
	}
}
