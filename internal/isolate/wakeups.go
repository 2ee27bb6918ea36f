package isolate

import (
	"sync"
	"time"

	"oscine.dev/oscine/internal/isolate/runqueue"
	"oscine.dev/oscine/internal/object"
)

// enoughWakeups is how many it takes to speak of the slowest hundredth.
const enoughWakeups = 100

// wakeupMeter measures the wake-ups of all workloads. It is safe for concurrent
// use.
type wakeupMeter struct {
	mu       sync.RWMutex // of all below; it is read while nothing is added, removed or closed
	meter    *runqueue.Meter
	measured map[string]*measured // by workload
}

// read returns what was measured of a workload, and nil where nothing is.
func (m *wakeupMeter) read(id string) (l runqueue.Latency, one *measured, err error) {
	if m == nil {
		return l, nil, nil
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if one = m.measured[id]; one == nil || m.meter == nil {
		return l, nil, nil
	}
	l, err = m.meter.Read(one.group)
	return l, one, err
}

// add begins to measure a cgroup.
func (m *wakeupMeter) add(id, dir string, objective time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	group, err := m.meter.Add(dir, objective)
	if err != nil {
		return err
	}
	if have := m.measured[id]; have == nil || have.group != group {
		err = m.removeLocked(id)
		m.measured[id] = &measured{group: group}
	}
	return err
}

// remove ends measuring a workload. One that is not measured is fine.
func (m *wakeupMeter) remove(id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.removeLocked(id)
}

func (m *wakeupMeter) removeLocked(id string) error {
	have := m.measured[id]
	if have == nil {
		return nil
	}
	delete(m.measured, id)
	return m.meter.Remove(have.group)
}

func (m *wakeupMeter) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.measured = nil
	return m.meter.Close()
}

// measured is one workload's cgroup, and its reading when it was last judged,
// which is observe's alone.
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
	i.meter.Store(&wakeupMeter{meter: meter, measured: map[string]*measured{}})
}

// measure begins to measure a workload whose cgroup has just been made.
func (i *Isolator) measure(h *holding) {
	i.startMeter()
	m := i.meter.Load()
	if m == nil {
		return
	}
	if err := m.add(h.spec.ID, i.cg.path(h.group()), h.spec.Objective); err != nil {
		i.log.Debug("isolation", "id", h.spec.ID, "error", err)
	}
}

func (i *Isolator) unmeasure(id string) {
	m := i.meter.Load()
	if m == nil {
		return
	}
	if err := m.remove(id); err != nil {
		i.log.Debug("isolation", "id", id, "error", err)
	}
}

func (i *Isolator) stopMeter() error {
	m := i.meter.Swap(nil)
	if m == nil {
		return nil
	}
	return m.close()
}

// wakeups reads what was measured of a workload, nil for nothing.
func (i *Isolator) wakeups(id string) *object.Wakeups {
	l, one, err := i.meter.Load().read(id)
	if err != nil {
		i.log.Debug("isolation", "id", id, "error", err)
	}
	if one == nil || err != nil {
		return nil
	}
	return &object.Wakeups{Count: l.Count(), P50: object.Duration(l.Quantile(.5)), P99: object.Duration(l.Quantile(.99)), Max: object.Duration(l.Max()), Missed: l.Missed()}
}

// recentWakeups returns the slowest hundredth of the wake-ups since it last
// did, once there are enough of them.
func (i *Isolator) recentWakeups(id string) (p99 time.Duration, count uint64, enough bool) {
	now, one, err := i.meter.Load().read(id)
	if err != nil {
		i.log.Debug("isolation", "id", id, "error", err)
	}
	if one == nil || err != nil {
		return 0, 0, false
	}
	recent := now.Since(&one.judged)
	if recent.Count() < enoughWakeups {
		return 0, 0, false
	}
	one.judged = now
	return recent.Quantile(.99), recent.Count(), true
}
