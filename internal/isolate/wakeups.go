package isolate

import (
	"fmt"
	"time"

	"oscine.dev/oscine/internal/isolate/runqueue"
)

// Wakeups is how long a workload's threads waited for a processor after they
// were woken, since its cgroup was made.
type Wakeups struct {
	Count  uint64   `json:"count"`
	P50    Duration `json:"p50"`
	P99    Duration `json:"p99"`
	Max    Duration `json:"max"`
	Missed uint64   `json:"missed,omitempty"` // longer than the objective
}

// enoughWakeups is how many it takes to speak of the slowest hundredth.
const enoughWakeups = 100

// wakeupMeter measures the wake-ups of all workloads; nil where this host
// cannot.
type wakeupMeter struct {
	*runqueue.Meter
	measured map[string]*measured // by workload
}

// measured is one workload's cgroup, and its reading when it was last judged.
type measured struct {
	group  runqueue.Group
	judged runqueue.Latency
}

// expectMeter tells whether wake-ups can be measured. It is begun with the
// first workload: loading the program means reading all of the kernel's types.
func (i *Isolator) expectMeter() []Gap {
	if i.host.cgroups == "" || i.o.Root != "/" {
		return nil
	}
	if err := runqueue.Supported(); err != nil {
		return []Gap{unmeasured(err)}
	}
	i.meterDue = true
	return nil
}

// unmeasured is what is missing without a meter: Status has the mean of the
// kernel's own accounting.
func unmeasured(err error) Gap {
	return Gap{"the slowest wake-ups of each workload are measured", "only their mean is: " + err.Error()}
}

// startMeter starts measuring, once.
func (i *Isolator) startMeter() {
	if !i.meterDue {
		return
	}
	i.meterDue = false
	meter, err := runqueue.Start()
	if err != nil {
		g := unmeasured(err)
		i.gaps = append(i.gaps, g)
		i.log.Warn("isolation", "guarantee", g.Guarantee, "missing", g.Reason)
		return
	}
	i.meter = &wakeupMeter{Meter: meter, measured: map[string]*measured{}}
}

// measure begins to measure a workload whose cgroup has just been made.
func (i *Isolator) measure(h *holding) {
	i.startMeter()
	if i.meter == nil {
		return
	}
	group, err := i.meter.Add(i.cg.path(h.group()), h.spec.Objective)
	if err != nil {
		i.log.Debug("isolation", "id", h.spec.ID, "error", err)
		return
	}
	if m := i.meter.measured[h.spec.ID]; m == nil || m.group != group {
		i.unmeasure(h.spec.ID)
		i.meter.measured[h.spec.ID] = &measured{group: group}
	}
}

func (i *Isolator) unmeasure(id string) {
	if i.meter == nil || i.meter.measured[id] == nil {
		return
	}
	if err := i.meter.Remove(i.meter.measured[id].group); err != nil {
		i.log.Debug("isolation", "id", id, "error", err)
	}
	delete(i.meter.measured, id)
}

func (i *Isolator) stopMeter() error {
	if i.meter == nil {
		return nil
	}
	m := i.meter
	i.meter = nil
	return m.Close()
}

// wakeups reads what was measured of a workload, nil for nothing.
func (i *Isolator) wakeups(id string) *Wakeups {
	if i.meter == nil || i.meter.measured[id] == nil {
		return nil
	}
	l, err := i.meter.Read(i.meter.measured[id].group)
	if err != nil {
		i.log.Debug("isolation", "id", id, "error", err)
		return nil
	}
	return &Wakeups{Count: l.Count(), P50: Duration(l.Quantile(.5)), P99: Duration(l.Quantile(.99)), Max: Duration(l.Max()), Missed: l.Missed()}
}

// recentWakeups returns the slowest hundredth of the wake-ups since it last
// did, once there are enough of them.
func (i *Isolator) recentWakeups(id string) (p99 time.Duration, count uint64, enough bool) {
	if i.meter == nil || i.meter.measured[id] == nil {
		return 0, 0, false
	}
	m := i.meter.measured[id]
	now, err := i.meter.Read(m.group)
	if err != nil {
		i.log.Debug("isolation", "id", id, "error", err)
		return 0, 0, false
	}
	recent := now.Since(&m.judged)
	if recent.Count() < enoughWakeups {
		return 0, 0, false
	}
	m.judged = now
	return recent.Quantile(.99), recent.Count(), true
}

// String tells the distribution in one line.
func (w *Wakeups) String() string {
	round := func(d Duration) time.Duration { return time.Duration(d).Round(100 * time.Nanosecond) }
	return fmt.Sprintf("half of %d within %v, 99 %% within %v, all within %v", w.Count, round(w.P50), round(w.P99), round(w.Max))
}
