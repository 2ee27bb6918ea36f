package isolate

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/bench/latency"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/isolate/schedext"
)

// The second back end runs the same classes, and goes when it is told to.
func TestKernelSchedExt(t *testing.T) {
	needKernel(t)
	if _, err := schedext.State(); err != nil {
		t.Skip(err)
	}
	i, err := Open(Options{Own: true, SchedExt: true})
	if err != nil {
		t.Fatal(err)
	}
	if i.ext.Load() == nil {
		gaps := fmt.Sprint(i.Gaps())
		if strings.Contains(gaps, "kfunc") {
			t.Skipf("this kernel describes sched_ext's functions wrongly (built with dwarves before 1.31): %s", gaps)
		}
		t.Fatalf("it did not start: %s", gaps)
	}
	me := []int{unix.Gettid()}
	if err := errors.Join(i.Raise(me, time.Second), i.Lower(me)); err != nil {
		t.Error(err)
	}
	one := hardware.NewSet(1)
	batch, inter := Spec{ID: "b", Class: Batch, CPUs: one}, Spec{ID: "i", Class: Interactive, CPUs: one}
	prepare(t, i, batch)
	prepare(t, i, inter)
	load := start(t, i, batch, spin(2))
	worker := start(t, i, inter, latency.Child{Worker: &latency.Worker{Duration: 2 * time.Second, Work: time.Millisecond}})
	var w latency.WorkerReport
	var l latency.LoadReport
	if err := errors.Join(worker.Wait(&w), load.End(&l)); err != nil {
		t.Fatal(err)
	}
	t.Logf("beside two batch spinners: p99 wake-up %v; batch had %.0f %% of the CPU", w.Histogram.Quantile(.99), 100*float64(l.CPUTime)/float64(l.Elapsed))
	if w.Histogram.Count() < 100 || l.Units == 0 {
		t.Errorf("%d wake-ups and %d units of batch work", w.Histogram.Count(), l.Units)
	}
	if !i.ext.Load().Running() {
		t.Error("the kernel's watchdog took the scheduler out")
	}
	if err := i.Close(); err != nil {
		t.Error(err)
	}
	if state, err := schedext.State(); err != nil || state != "disabled" {
		t.Errorf("after Close: got %q %v", state, err)
	}
}
