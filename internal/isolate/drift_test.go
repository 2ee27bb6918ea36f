package isolate

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/bench/latency"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/linux"
)

func TestKernelChangesByOthersAreRepaired(t *testing.T) {
	i, seen := open(t)
	s := Spec{ID: "rt", Class: Realtime, CPUs: hardware.NewSet(3)}
	prepare(t, i, s)
	prepare(t, i, Spec{ID: "w", Class: Interactive, MemoryLow: 1 << 20})
	if drifts := i.Verify(); len(drifts) != 0 {
		t.Fatalf("nothing was changed, got %v", drifts)
	}
	for _, change := range [][2]string{
		{"oscine.slice/batch/cpu.idle", "0"}, {"oscine.slice/interactive/cpu.weight", "1"},
		{"oscine.slice/interactive/w/memory.low", "0"}, {"oscine.slice/realtime/rt/cpuset.cpus.partition", "member"},
	} {
		if err := writeFile("/sys/fs/cgroup/"+change[0], change[1]); err != nil {
			t.Fatal(err)
		}
	}
	if drifts := i.Verify(); len(drifts) != 4 {
		t.Errorf("4 files were changed, got %v", drifts)
	} else {
		for _, d := range drifts {
			if !d.Repaired {
				t.Error(d)
			}
		}
	}
	shows(t, "1", "oscine.slice/batch/cpu.idle")
	shows(t, "isolated", "oscine.slice/realtime/rt/cpuset.cpus.partition")
	if !seen.has(ReasonRepaired, "rt") || !seen.has(ReasonRepaired, "w") || !seen.has(ReasonRepaired, "") {
		t.Errorf("events: got %+v", seen.all)
	}
	var err error
	for range 50 { // those of earlier tests are dying
		i.Verify()
		if err = unix.Rmdir("/sys/fs/cgroup/oscine.slice/batch"); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	if drifts := i.Verify(); len(drifts) != 1 || !drifts[0].Repaired {
		t.Errorf("the batch slice was removed: got %v", drifts)
	}
	shows(t, "1", "oscine.slice/batch/cpu.idle")
}

func TestKernelUnpluggedCPUIsReported(t *testing.T) {
	i, seen := open(t)
	prepare(t, i, Spec{ID: "rt", Class: Realtime, CPUs: hardware.NewSet(3)})
	const online = "/sys/devices/system/cpu/cpu3/online"
	if err := writeFile(online, "0"); err != nil {
		t.Fatal(err)
	}
	i.Verify()
	i.Verify()
	if !seen.has(ReasonBroken, "rt") {
		t.Errorf("no event after CPU 3 went: %+v", seen.all)
	}
	if st, err := i.Status("rt"); err != nil || st.Promises[0].Held || !strings.Contains(st.Promises[0].Detail, "offline") {
		t.Errorf("got %+v %v", st, err)
	}
	if err := writeFile(online, "1"); err != nil {
		t.Fatal(err)
	}
	i.Verify()
	i.Verify()
	shows(t, "isolated", "oscine.slice/realtime/rt/cpuset.cpus.partition")
	if !seen.has(ReasonRepaired, "rt") {
		t.Errorf("no event after CPU 3 came back: %+v", seen.all)
	}
}

// A reservation outlives the loss of one of its two CPUs.
func TestKernelUnplugKeepsReservation(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/realtime"); err == nil {
		t.Skip("Linux 7.2 with PREEMPT_RT may hang here, see docs/isolation.md")
	}
	i, seen := open(t)
	s := Spec{ID: "dl", Class: Realtime, CPUs: hardware.NewSet(2, 3), Deadline: &Reservation{Runtime: ms, Period: 10 * ms}}
	prepare(t, i, s)
	p := start(t, i, s, spinFor(20*time.Second))
	const online = "/sys/devices/system/cpu/cpu3/online"
	if err := writeFile(online, "0"); err != nil {
		t.Fatal(err)
	}
	i.Verify()
	i.Verify()
	if !seen.has(ReasonBroken, "dl") {
		t.Errorf("no event after CPU 3 went: %+v", seen.all)
	}
	shows(t, "2", "oscine.slice/realtime/dl/cpuset.cpus.effective")
	if got, err := linux.GetScheduling(p.PID); err != nil || got.Policy != linux.PolicyDeadline {
		t.Errorf("without CPU 3 it runs under %+v %v", got, err)
	}
	if err := writeFile(online, "1"); err != nil {
		t.Fatal(err)
	}
	i.Verify()
	i.Verify()
	shows(t, "2-3", "oscine.slice/realtime/dl/cpuset.cpus.effective")
	shows(t, "root", "oscine.slice/realtime/dl/cpuset.cpus.partition")
	if got, err := linux.GetScheduling(p.PID); err != nil || got.Policy != linux.PolicyDeadline || !seen.has(ReasonRepaired, "dl") {
		t.Errorf("with CPU 3 back it runs under %+v %v; events %+v", got, err, seen.all)
	}
}

// A daemon that starts again takes its workloads over one by one; those that it
// has not come to keep what they have.
func TestKernelRestartKeepsPromises(t *testing.T) {
	first, _ := open(t)
	a := Spec{ID: "a", Class: Realtime, CPUs: hardware.NewSet(2)}
	b := Spec{ID: "b2", Class: Realtime, CPUs: hardware.NewSet(3)}
	for _, s := range []Spec{a, b} {
		if err := first.Prepare(s); err != nil {
			t.Fatal(err)
		}
	}
	second, _ := open(t)
	prepare(t, second, a)
	shows(t, "isolated", "oscine.slice/realtime/b2/cpuset.cpus.partition")
	shows(t, "2-3", "oscine.slice/realtime/cpuset.cpus.exclusive")
	prepare(t, second, b)
	shows(t, "isolated", "oscine.slice/realtime/a/cpuset.cpus.partition")
	shows(t, "2-3", "cpuset.cpus.isolated")
}

func TestKernelBatchIsFrozenAndResumed(t *testing.T) {
	i, _ := open(t)
	s := Spec{ID: "b", Class: Batch}
	prepare(t, i, s)
	p := start(t, i, s, spin(2))
	time.Sleep(300 * time.Millisecond) // let it begin
	began := time.Now()
	if err := i.holdBatch(frozen); err != nil {
		t.Fatal(err)
	}
	for text := ""; !strings.Contains(text, "frozen 1"); text, _ = i.cg.get("oscine.slice/batch", "cgroup.events") {
		if time.Since(began) > 5*time.Second {
			t.Fatal("batch is not frozen")
		}
	}
	t.Logf("frozen after %v", time.Since(began))
	used := func() uint64 {
		text, err := i.cg.get("oscine.slice/batch", "cpu.stat")
		if err != nil {
			t.Fatal(err)
		}
		return numbers(text)["usage_usec"]
	}
	before := used()
	time.Sleep(300 * time.Millisecond)
	// A thread counts as frozen before it leaves its CPU: the rest of that way
	// is charged later. Running, the two would have used 600 ms.
	if after := used(); after > before+10_000 {
		t.Errorf("frozen batch used %d µs", after-before)
	}
	if err := i.holdBatch(free); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if after := used(); after < before+50_000 {
		t.Errorf("thawed batch used %d µs of 300 ms", after-before)
	}
	var report latency.LoadReport
	if err := p.End(&report); err != nil || report.Units == 0 {
		t.Errorf("after the thaw: %+v %v", report, err)
	}
}
