package isolate

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"oscine.dev/oscine/internal/object"
)

// observeEvery is how often limits and objectives are looked at.
const observeEvery = time.Second

// observation is what was seen of a workload the last time: observe's alone
// but for what is atomic, which Status reads.
type observation struct {
	limits   object.Incidents // as the kernel counts them
	waited   object.Duration
	given    uint64
	pressure map[string]object.Pressure
	throttle object.Duration
	missing  atomic.Bool // its objective, in the last second
	missed   atomic.Uint64
	observed atomic.Uint64
}

// incidents reads what the kernel counts.
func (i *Isolator) incidents(group string) object.Incidents {
	var n object.Incidents
	if text, err := i.cg.get(group, "pids.events"); err == nil {
		n.ForksRefused = numbers(text)["max"]
	}
	if text, err := i.cg.get(group, "memory.events"); err == nil {
		events := numbers(text)
		n.Killed, n.Reclaimed = events["oom_kill"], events["max"]
	}
	return n
}

// observe checks every workload and reports limits that were reached since
// the last look, and of objectives that were missed, with the cause. It reads
// the files of every thread and holds nothing that others need meanwhile.
func (i *Isolator) observe() {
	i.observing.Lock()
	var events []Event
	for id, h := range i.view().held {
		events = append(events, i.observeOne(id, h)...)
	}
	for _, c := range allClasses() {
		if e, ok := i.observeClass(c); ok {
			events = append(events, e)
		}
	}
	i.observing.Unlock()
	i.emit(events)
}

func (i *Isolator) observeOne(id string, h *holding) []Event {
	var events []Event
	now, before := i.incidents(h.group()), h.seen.limits
	h.seen.limits = now
	tell := func(reason, format string, args ...any) {
		events = append(events, Event{ID: id, Reason: reason, Message: fmt.Sprintf(format, args...)})
	}
	if now.ForksRefused > before.ForksRefused && before.ForksRefused == 0 {
		limit, _ := i.cg.get(h.group(), "pids.max")
		tell(ReasonLimit, "it may have no more than %s processes and threads: more were refused", limit)
	}
	if now.Killed > before.Killed {
		tell(ReasonKilled, "%d of its processes killed: it needs more memory than %s", now.Killed-before.Killed, memoryLimit(&h.spec))
	}
	if h.spec.Objective > 0 {
		events = append(events, i.observeObjective(id, h)...)
	}
	return events
}

func memoryLimit(s *Spec) string {
	if s.Memory == 0 {
		return "this machine has for it"
	}
	return "its limit of " + memoryDetail(s.Memory)
}

// observeClass tells once that a class as a whole is at its bound.
func (i *Isolator) observeClass(c object.Class) (Event, bool) {
	group := filepath.Join(i.o.Slice, string(c))
	now, before := i.incidents(group).ForksRefused, i.classRefused[c]
	i.classRefused[c] = now
	limit, err := i.cg.get(group, "pids.max")
	if now <= before || before != 0 || err != nil || limit == "max" {
		return Event{}, false
	}
	current, err := numberIn(i.cg.path(group, "pids.current"))
	if bound, e := numberIn(i.cg.path(group, "pids.max")); err != nil || e != nil || current < bound {
		return Event{}, false // one of its workloads is at its own
	}
	return Event{Reason: ReasonLimit, Message: fmt.Sprintf("class %s may have no more than %s processes and threads: more were refused", c, limit)}, true
}

// observeObjective compares the waiting of the last second with the objective.
func (i *Isolator) observeObjective(id string, h *holding) []Event {
	st := object.IsolationStatus{Pressure: map[string]object.Pressure{}}
	i.readGroup(h.group(), &st)
	given := i.readDelay(h, &st)
	seen := h.seen
	waited, times := st.RunDelay-seen.waited, given-seen.given
	first := seen.given == 0 || st.RunDelay < seen.waited || given < seen.given // threads ended
	cause := i.cause(h, &st)
	seen.waited, seen.given, seen.pressure, seen.throttle = st.RunDelay, given, st.Pressure, st.Throttled
	var late time.Duration
	of := "on average"
	switch p99, count, enough := i.recentWakeups(id); {
	case enough:
		late, of = p99, fmt.Sprintf("in the slowest hundredth of %d wake-ups", count)
	case i.meter.Load() != nil, first, times == 0:
		return nil
	default:
		late = time.Duration(waited) / time.Duration(times)
	}
	seen.observed.Add(1)
	misses := late > h.spec.Objective
	was := seen.missing.Swap(misses)
	switch {
	case misses:
		seen.missed.Add(1)
		if !was {
			return []Event{{ID: id, Reason: ReasonBroken, Message: fmt.Sprintf("its threads waited %v for a processor %s, %v is promised: %s", late.Round(time.Microsecond), of, h.spec.Objective, cause)}}
		}
	case was:
		return []Event{{ID: id, Reason: ReasonRepaired, Message: fmt.Sprintf("its threads wait %v for a processor %s again, %v is promised", late.Round(time.Microsecond), of, h.spec.Objective)}}
	}
	return nil
}

// cause names what most likely made a workload wait in the last second.
func (i *Isolator) cause(h *holding, st *object.IsolationStatus) string {
	grew := func(what string) time.Duration {
		return time.Duration(st.Pressure[what].Some - h.seen.pressure[what].Some)
	}
	const much = observeEvery / 20
	switch {
	case st.Throttled-h.seen.throttle > object.Duration(much):
		return fmt.Sprintf("its own quota held it back for %v", time.Duration(st.Throttled-h.seen.throttle).Round(time.Millisecond))
	case len(h.unheld) > 0:
		return h.unheld[0].String()
	case grew("memory") > much:
		return fmt.Sprintf("the kernel reclaimed memory for %v meanwhile", grew("memory").Round(time.Millisecond))
	case h.spec.Exclusive && grew("cpu") > much:
		return fmt.Sprintf("its own threads wait for each other on its CPUs %s: it needs more of them", h.spec.CPUs)
	case grew("cpu") > much:
		return fmt.Sprintf("other work of classes %s and above runs on CPUs %s too: give it CPUs of its own or more CPU", h.spec.Class, h.spec.CPUs)
	}
	return "nothing in its cgroup explains it; a hypervisor or firmware may have taken the processor"
}
