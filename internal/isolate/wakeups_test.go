package isolate

import (
	"errors"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/bench/latency"
	"oscine.dev/oscine/internal/bpf"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/isolate/runqueue"
)

// The kernel's own measure of a workload's wake-ups agrees with the workload's.
func TestKernelWakeupsAreMeasured(t *testing.T) {
	if err := runqueue.Supported(); errors.Is(err, bpf.ErrNotBuilt) {
		t.Skip(err)
	}
	i, seen := open(t)
	one := hardware.NewSet(1)
	spec := Spec{ID: "w", Class: Interactive, CPUs: one, Objective: time.Second}
	prepare(t, i, spec)
	if i.meter.Load() == nil {
		t.Fatal(i.Gaps())
	}
	w := measureWakeups(t, i, spec)
	st, err := i.Status("w")
	if err != nil || st.Wakeups == nil {
		t.Fatal(st, err)
	}
	t.Logf("the worker: half of %d within %v, 99 %% within %v, all within %v; the kernel: %v", w.Count(), w.Quantile(.5), w.Quantile(.99), w.Max(), st.Wakeups)
	if st.Wakeups.Count < w.Count() {
		t.Errorf("%d wake-ups measured, the worker counted %d", st.Wakeups.Count, w.Count())
	}
	// The worker's lateness has the timer's interrupt in it too.
	if p50 := time.Duration(st.Wakeups.P50); p50 > 2*w.Quantile(.5) || st.Wakeups.Missed != 0 {
		t.Errorf("half within %v, the worker says %v; %d missed", p50, w.Quantile(.5), st.Wakeups.Missed)
	}

	// What this class cannot keep beside others of its class is reported, with a cause.
	tight := Spec{ID: "late", Class: Interactive, CPUs: one, Objective: 50 * time.Microsecond}
	prepare(t, i, tight)
	rival := Spec{ID: "rival", Class: Interactive, CPUs: one}
	prepare(t, i, rival)
	load := start(t, i, rival, spin(4))
	i.observe()
	measureWakeups(t, i, tight)
	i.observe()
	var l latency.LoadReport
	if err := load.End(&l); err != nil {
		t.Error(err)
	}
	if st, err = i.Status("late"); err != nil || st.Wakeups.Missed == 0 {
		t.Fatalf("%+v %v", st.Wakeups, err)
	}
	t.Logf("beside four rivals: %v, %d missed", st.Wakeups, st.Wakeups.Missed)
	if !seen.has(ReasonBroken, "late") {
		t.Error("no event reports the broken promise")
	}
	for _, p := range st.Promises {
		if strings.HasPrefix(p.What, "wakes within") {
			t.Logf("%s: %v: %s", p.What, p.Held, p.Detail)
			if p.Held || !strings.Contains(p.Detail, "99 %") {
				t.Errorf("got %+v", p)
			}
		}
	}
}

func measureWakeups(t *testing.T, i *Isolator, s Spec) *latency.Histogram {
	t.Helper()
	var w latency.WorkerReport
	if err := start(t, i, s, latency.Child{Worker: &latency.Worker{Duration: 2 * time.Second}}).Wait(&w); err != nil {
		t.Fatal(err)
	}
	return &w.Histogram
}
