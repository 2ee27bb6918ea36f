package isolate

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/printable"
)

// Status measures a workload now, and waits for no change under way. It returns
// ErrUnknown for one that was not prepared.
func (i *Isolator) Status(id string) (object.IsolationStatus, error) {
	h, ok := i.view().held[id]
	if !ok {
		return object.IsolationStatus{}, fmt.Errorf("workload %s %w", id, ErrUnknown)
	}
	st := object.IsolationStatus{ID: id, Class: h.spec.Class, Pressure: map[string]object.Pressure{}}
	if i.host.cgroups != "" {
		i.readGroup(h.group(), &st)
		st.Incidents = i.incidents(h.group())
		st.Missed, st.Observed = h.seen.missed.Load(), h.seen.observed.Load()
	} else {
		st.CPUTime = object.Duration(i.legacyUsage(h.group()).CPUTime)
	}
	i.readDelay(h, &st)
	st.Wakeups = i.wakeups(id)
	if h.spec.Class == Realtime {
		st.Interrupts = i.interruptsOn(h.spec.CPUs)
		st.Reservable = float64(i.bound(h.spec.CPUs).Limit()) / unit
		for _, r := range h.reserved {
			st.Reserved += Utilisation([]Reservation{*r})
		}
	}
	if why := i.heldBack.Load(); h.spec.Class == Batch && why != nil {
		st.FrozenFor = *why
	}
	st.Promises = i.promises(h, &st)
	return st, nil
}

func (i *Isolator) readGroup(group string, st *object.IsolationStatus) {
	for _, what := range []string{"cpu", "memory", "io"} {
		if text, err := i.cg.get(group, what+".pressure"); err == nil {
			st.Pressure[what] = parsePressure(text)
		}
	}
	if text, err := i.cg.get(group, "cpu.stat"); err == nil {
		n := numbers(text)
		st.CPUTime = object.Duration(time.Duration(n["usage_usec"]) * time.Microsecond)
		st.Throttled = object.Duration(time.Duration(n["throttled_usec"]) * time.Microsecond)
	}
}

// parsePressure reads a PSI file; what it does not know it leaves out.
func parsePressure(text string) object.Pressure {
	var s object.Pressure
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		for _, f := range fields[1:] {
			key, value, _ := strings.Cut(f, "=")
			n, err := strconv.ParseFloat(value, 64)
			if err != nil || n < 0 {
				continue
			}
			total := object.Duration(min(n, 1e12) * 1000)
			switch fields[0] + key {
			case "someavg10":
				s.Some10 = n
			case "fullavg10":
				s.Full10 = n
			case "sometotal":
				s.Some = total
			case "fulltotal":
				s.Full = total
			}
		}
	}
	return s
}

// maxThreads bounds how many threads Status looks at.
const maxThreads = 4096

// readDelay adds up /proc/PID/task/TID/schedstat: time on a processor, time
// waiting for one, and how often it was given one, which it returns.
func (i *Isolator) readDelay(h *holding, st *object.IsolationStatus) (given uint64) {
	seen := 0
	for _, pid := range i.processes(h) {
		_ = i.forThreads(pid, func(tid int) error { // a process that ended counts no more
			if seen++; seen > maxThreads {
				return nil
			}
			text, err := readFile(i.host.file("proc", strconv.Itoa(pid), "task", strconv.Itoa(tid), "schedstat"))
			if err != nil {
				return err
			}
			var ran, waited, times uint64
			if _, err := fmt.Sscan(text, &ran, &waited, &times); err == nil {
				st.RunDelay += object.Duration(waited)
				given += times
			}
			return nil
		})
	}
	if given > 0 {
		st.MeanDelay = st.RunDelay / object.Duration(given)
	}
	return given
}

// processes lists the workload's processes: of its cgroup, else those that
// Apply was called with.
func (i *Isolator) processes(h *holding) []int {
	if i.host.cgroups == "" {
		return h.pids
	}
	text, err := i.cg.get(h.group(), "cgroup.procs")
	if err != nil {
		return nil
	}
	var pids []int
	for _, f := range strings.Fields(text) {
		if pid, err := strconv.Atoi(f); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// promises lists what the class and Spec promise, each with what is measured.
func (i *Isolator) promises(h *holding, st *object.IsolationStatus) []object.Promise {
	out := []object.Promise{} // none is a list too
	add := func(what string, held bool, detail string) {
		if !held && i.host.cgroups == "" {
			detail = "this host has no cgroup version 2 to hold it with"
		}
		for _, g := range h.unheld {
			if g.Guarantee == what {
				held, detail = false, g.Reason
			}
		}
		out = append(out, object.Promise{What: what, Held: held, Detail: detail})
	}
	s := &h.spec
	switch s.Class {
	case Realtime:
		add(guaranteeCPUs, i.host.cgroups != "", s.CPUs.String())
		if !s.Idle.Empty() {
			add(guaranteeIdle, i.host.cgroups != "", s.Idle.String())
		}
		want := "SCHED_FIFO"
		if s.Deadline != nil {
			want = fmt.Sprintf("SCHED_DEADLINE %v of every %v", s.Deadline.Runtime, s.Deadline.Period)
		}
		got, held := i.policy(h)
		add(want, held, got)
		awake, how := i.awake(s.CPUs)
		add("its CPUs stay awake at full speed", awake, how)
		add("memory never reclaimed", i.host.cgroups != "" && s.Memory > 0, memoryDetail(s.Memory))
	case Interactive:
		if s.Exclusive {
			add(guaranteeCPUs, i.host.cgroups != "", s.CPUs.String())
		}
		add("batch work yields to it", i.host.cgroups != "", fmt.Sprintf("stalled %.2f %% of the last 10 s", st.Pressure["cpu"].Some10))
		if s.MemoryLow > 0 {
			add("memory spared by reclaim", i.host.cgroups != "", memoryDetail(s.MemoryLow))
		}
	}
	if s.Objective > 0 {
		detail := "on average after " + st.MeanDelay.String()
		if w := st.Wakeups; w != nil && w.Count > 0 {
			detail = fmt.Sprintf("%v; %d later than that", w, w.Missed)
		}
		add("wakes within "+s.Objective.String(), !h.seen.missing.Load(), fmt.Sprintf("%s; missed in %d of %d s", detail, st.Missed, st.Observed))
	}
	known := map[string]bool{}
	for _, p := range out {
		known[p.What] = true
	}
	for _, g := range h.unheld {
		if !known[g.Guarantee] {
			out = append(out, object.Promise{What: g.Guarantee, Detail: g.Reason})
		}
	}
	return out
}

func memoryDetail(bytes int64) string {
	if bytes == 0 {
		return "its manifest gives no memory limit"
	}
	return printable.Bytes(bytes)
}

// policy is the scheduling of the workload's first process.
func (i *Isolator) policy(h *holding) (text string, held bool) {
	want := linux.PolicyFIFO
	if h.spec.Deadline != nil {
		want = linux.PolicyDeadline
	}
	if len(h.pids) == 0 {
		return "it has not started", false
	}
	got, err := linux.GetScheduling(h.pids[0])
	if err != nil {
		return fmt.Sprintf("process %d has ended", h.pids[0]), false
	}
	return fmt.Sprintf("process %d: SCHED_%s", h.pids[0], got.Policy), got.Policy == want
}
