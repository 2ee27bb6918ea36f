package isolate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"oscine.dev/oscine/internal/bench/latency"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/linux"
)

// compete lets a workload with a priority while it may have one, and demand for
// so many thousandths of a CPU, run on one CPU beside a neighbour that always
// has work and the same weight. It returns what each got, and the time under
// the priority, in thousandths.
func compete(promise, demand int64) (workload, neighbour, raised int64) {
	const tick = time.Millisecond
	var b budget
	var used, wanted, other, prior time.Duration
	now := time.Unix(1000, 0)
	spent := b.spend(now, 0, promise)
	const ticks = 20_000
	for n := range ticks {
		now = now.Add(tick)
		wanted += tick * time.Duration(demand) / 1000
		switch {
		case wanted < used+tick:
			other += tick
		case !spent:
			used, prior = used+tick, prior+tick
		case n%2 == 0: // equal weights
			used += tick
		default:
			other += tick
		}
		if n%int(guardRest/tick) == 0 {
			spent = b.spend(now, used, promise)
		}
	}
	per := func(d time.Duration) int64 { return int64(d * 1000 / (ticks * tick)) }
	return per(used), per(other), per(prior)
}

func TestPriorityIsBoundedByThePromise(t *testing.T) {
	for _, c := range []struct {
		promise, demand         int64
		workload, neighbour     int64 // at least
		raisedLeast, raisedMost int64
	}{
		{500, 300, 290, 690, 290, 310},   // within its promise all of it is urgent
		{500, 1000, 490, 480, 0, 100},    // beyond it, the neighbour keeps its half
		{100, 1000, 480, 480, 0, 60},     // a small promise buys little
		{1000, 1000, 990, 0, 990, 1000},  // the whole CPU was promised
		{0, 900, 890, 90, 890, 900},      // the usual is one CPU
		{20, 1000, 480, 480, 0, 30},      //
		{750, 1000, 740, 240, 450, 1000}, // beside a neighbour that was promised a quarter
	} {
		w, n, raised := compete(c.promise, c.demand)
		if w < c.workload || n < c.neighbour || raised < c.raisedLeast || raised > c.raisedMost {
			t.Errorf("promised %d m, wanting %d m: it got %d m (%d m by priority), its neighbour %d m; want at least %d m, %d m, and %d to %d m by priority",
				c.promise, c.demand, w, raised, n, c.workload, c.neighbour, c.raisedLeast, c.raisedMost)
		}
	}
}

func TestBudgetStartsAgainWithItsCgroup(t *testing.T) {
	var b budget
	now := time.Unix(1000, 0)
	b.spend(now, 0, 100)
	if !b.spend(now.Add(time.Second), time.Second, 100) {
		t.Error("ten times what was promised is within the budget")
	}
	if b.spend(now.Add(2*time.Second), 0, 100) {
		t.Error("a new cgroup has the debts of the old one")
	}
	b.spend(now.Add(3*time.Second), 1000*time.Hour, 100)
	if got, want := b.left, -100*5*ms; got != want {
		t.Errorf("a debt of %v, want at most %v", got, want)
	}
}

// Without a thread of its own, for what has ended is no error, a workload's
// priority is taken by its CPU time and given again.
func TestPriorityEndsWithTheBudget(t *testing.T) {
	i, root := openTree(t, nil)
	p := i.Priority("m")
	if p != i.Priority("m") {
		t.Error("one workload has two budgets")
	}
	if err := i.Prepare(Spec{ID: "m", Class: Interactive, MilliCPU: 500}); err != nil {
		t.Fatal(err)
	}
	used := func(d time.Duration) {
		text := fmt.Sprintf("usage_usec %d\n", d.Microseconds())
		if err := os.WriteFile(filepath.Join(root, "sys/fs/cgroup/oscine.slice/interactive/m/cpu.stat"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Unix(1000, 0)
	raises := func(when string, want bool) {
		t.Helper()
		now = now.Add(time.Second)
		i.guardOnce(now, i.emit)
		const ended = 1 << 30
		if err := p.Raise([]int{ended}, ms); err != nil {
			t.Fatal(err)
		}
		if got := len(p.raised) > 0; got != want {
			t.Errorf("%s: raised %v, want %v", when, got, want)
		}
	}
	used(0)
	raises("at first", true)
	raises("idle", true)
	used(900 * ms)
	raises("after 900 ms in a second", false)
	used(1300 * ms)
	raises("after 400 ms in a second", false)
	used(1400 * ms)
	raises("after 100 ms in a second", true)
	if err := i.Release("m"); err != nil {
		t.Fatal(err)
	}
	if p == i.Priority("m") {
		t.Error("the budget outlives its workload")
	}
}

func TestNoPriorityWhereNothingBoundsIt(t *testing.T) {
	i, err := Open(Options{Root: tree(t, "sys/x")})
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Priority("m").Raise([]int{1}, ms); !errors.Is(err, ErrUnbounded) {
		t.Errorf("got %v, want %v", err, ErrUnbounded)
	}
}

// A worker that always computes for near deadlines leaves its neighbour the CPU
// time that it was promised.
func TestKernelPriorityLeavesNeighboursTheirs(t *testing.T) {
	i, _ := open(t)
	ctx := t.Context()
	watched := make(chan struct{})
	go func() { defer close(watched); i.Watch(ctx) }()
	t.Cleanup(func() { <-watched })
	one := hardware.NewSet(1)
	urgent := Spec{ID: "urgent", Class: Interactive, CPUs: one, MilliCPU: 500}
	neighbour := Spec{ID: "neighbour", Class: Interactive, CPUs: one, MilliCPU: 500}
	prepare(t, i, urgent)
	prepare(t, i, neighbour)
	a, b := start(t, i, urgent, spin(1)), start(t, i, neighbour, spin(1))
	p := i.Priority("urgent")
	var tids []int
	for _, tid := range threads(t, a.PID) {
		var n int
		if _, err := fmt.Sscan(tid, &n); err != nil {
			t.Fatal(err)
		}
		tids = append(tids, n)
	}
	used := func(id string) time.Duration {
		text, err := i.cg.get("oscine.slice/interactive/"+id, "cpu.stat")
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(numbers(text)["usage_usec"]) * time.Microsecond
	}
	raised := false
	before := [2]time.Duration{used("urgent"), used("neighbour")}
	for begin := time.Now(); time.Since(begin) < 4*time.Second; time.Sleep(3 * time.Millisecond) {
		if err := p.Raise(tids, 2*ms); err != nil {
			t.Fatal(err)
		}
		if s, err := linux.GetScheduling(tids[0]); err == nil && s.Policy == linux.PolicyFIFO {
			raised = true
		}
	}
	mine, theirs := used("urgent")-before[0], used("neighbour")-before[1]
	t.Logf("urgent %v, its neighbour %v", mine, theirs)
	if !raised {
		t.Error("it never had a priority")
	}
	if theirs < (mine+theirs)*2/5 {
		t.Errorf("its neighbour got %v beside %v, promised was half", theirs, mine)
	}
	for _, process := range []*latency.Process{a, b} {
		var l latency.LoadReport
		if err := process.End(&l); err != nil {
			t.Error(err)
		}
	}
}
