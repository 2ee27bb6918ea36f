package isolate

import (
	"fmt"
	"path/filepath"
	"time"

	"oscine.dev/oscine/internal/object"
)

// Usage is what a workload or a class uses, read of its cgroup alone: it costs
// a dozen small files, however many threads there are.
type Usage struct {
	CPUTime, Throttled time.Duration
	Memory             int64 // bytes
	Processes          int64 // and threads
	Pressure           map[string]object.Pressure
	object.Incidents
}

// WorkloadUsage is what a workload was promised and uses.
type WorkloadUsage struct {
	Usage
	Class            object.Class
	MemoryLimit      int64 // bytes; 0: none
	Promises, Broken int
	Wakeups          *WakeupTimes // nil where this host cannot measure them
}

// WakeupTimes counts how long threads waited after they were woken.
type WakeupTimes struct {
	Count, Missed uint64 // Missed: longer than the objective
	Sum           time.Duration
	Within        []uint64 // how many waited at most each bound that was asked for
}

// Usage reads what a workload uses, and how many of its wake-ups took at most
// each of the bounds, which ascend. It waits for no change under way. It returns
// ErrUnknown for a workload that was not prepared.
func (i *Isolator) Usage(id string, bounds []time.Duration) (WorkloadUsage, error) {
	h, ok := i.view().held[id]
	if !ok {
		return WorkloadUsage{}, fmt.Errorf("workload %s %w", id, ErrUnknown)
	}
	u := WorkloadUsage{Class: h.spec.Class, MemoryLimit: h.spec.Memory}
	u.Usage = i.usage(h.group())
	u.Missed, u.Observed = h.seen.missed.Load(), h.seen.observed.Load()
	st := object.IsolationStatus{Pressure: u.Pressure, Incidents: u.Incidents, Wakeups: i.wakeups(id)}
	for _, p := range i.promises(h, &st) {
		u.Promises++
		if !p.Held {
			u.Broken++
		}
	}
	if l, one, err := i.meter.Load().read(id); one != nil && err == nil {
		u.Wakeups = &WakeupTimes{Count: l.Count(), Missed: l.Missed(), Sum: l.Sum(), Within: l.Within(bounds)}
	}
	return u, nil
}

// ClassUsage reads what a class uses as a whole.
func (i *Isolator) ClassUsage(c object.Class) Usage {
	return i.usage(filepath.Join(i.o.Slice, string(c)))
}

// HeldBack says why batch work is held back now, "" while it is not.
func (i *Isolator) HeldBack() string {
	if why := i.heldBack.Load(); why != nil {
		return *why
	}
	return ""
}

func (i *Isolator) usage(group string) Usage {
	if i.host.cgroups == "" {
		return i.legacyUsage(group)
	}
	st := object.IsolationStatus{Pressure: map[string]object.Pressure{}}
	i.readGroup(group, &st)
	u := Usage{CPUTime: time.Duration(st.CPUTime), Throttled: time.Duration(st.Throttled), Pressure: st.Pressure, Incidents: i.incidents(group)}
	u.Memory, _ = numberIn(i.cg.path(group, "memory.current")) // 0 where the controller is missing
	u.Processes, _ = numberIn(i.cg.path(group, "pids.current"))
	return u
}
