package isolate

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/linux"
)

// batchSlice is how long a batch thread runs before its like: the longest that
// the kernel takes. Fewer switches are fewer interrupts for others to meet.
const batchSlice = 100 * time.Millisecond

// Apply sets what needs a process: scheduling policy, timer slack, limits. It
// is called with a workload's first process before that runs its program; what
// it starts later inherits. Errors: ErrUnknown, ErrOverCommitted.
func (i *Isolator) Apply(id string, pid int) error {
	defer i.change()()
	h, ok := i.held[id]
	if !ok {
		return fmt.Errorf("workload %s %w: prepare it first", id, ErrUnknown)
	}
	h.pids = []int{pid}
	h.reserved = map[int]*Reservation{}
	switch h.spec.Class {
	case Realtime:
		return i.applyRealtime(h, pid)
	case Interactive:
		i.slack(h, pid)
	case Batch:
		i.applyBatch(h, pid)
	}
	i.applyWithoutCgroups(h, pid)
	return nil
}

// Adopt takes over a workload that was prepared and applied by an earlier
// process and still runs: its first process is only noted.
func (i *Isolator) Adopt(id string, pid int) error {
	defer i.change()()
	h, ok := i.held[id]
	if !ok {
		return fmt.Errorf("workload %s %w: prepare it first", id, ErrUnknown)
	}
	if len(h.pids) == 1 && h.pids[0] == pid {
		return nil
	}
	h.pids = []int{pid}
	if h.spec.Deadline != nil {
		if s, err := linux.GetScheduling(pid); err == nil && s.Policy == linux.PolicyDeadline {
			h.reserved[pid] = h.spec.Deadline
		}
	}
	return nil
}

func (i *Isolator) applyRealtime(h *holding, pid int) error {
	i.slack(h, pid)
	unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Prlimit(pid, unix.RLIMIT_MEMLOCK, &unlimited, nil); err != nil {
		h.miss("its memory may be locked", "the kernel refuses to raise the limit: %v", err)
	}
	top := unix.Rlimit{Cur: RealtimePriority, Max: RealtimePriority}
	if err := unix.Prlimit(pid, unix.RLIMIT_RTPRIO, &top, nil); err != nil {
		h.miss("its threads may choose their real-time priority", "the kernel refuses to raise the limit: %v", err)
	}
	i.applyWithoutCgroups(h, pid)
	if h.spec.Deadline != nil {
		return i.reserve(h, pid, *h.spec.Deadline)
	}
	return i.forThreads(pid, func(tid int) error {
		if err := linux.SetScheduling(tid, linux.Scheduling{Policy: linux.PolicyFIFO, Priority: RealtimePriority}); err != nil {
			return fmt.Errorf("SCHED_FIFO for thread %d: %w", tid, i.whyNotFIFO(h.group(), err))
		}
		return nil
	})
}

// applyBatch is best effort: cpu.idle of the class is what counts.
func (i *Isolator) applyBatch(h *holding, pid int) {
	err := i.forThreads(pid, func(tid int) error {
		return linux.SetScheduling(tid, linux.Scheduling{Policy: linux.PolicyBatch, Runtime: batchSlice})
	})
	if err != nil {
		i.log.Debug("isolation", "id", h.spec.ID, "error", err)
	}
}

// applyWithoutCgroups does by thread what cgroup version 2 would do better.
func (i *Isolator) applyWithoutCgroups(h *holding, pid int) {
	if i.host.cgroups != "" {
		return
	}
	if h.spec.Class == Batch {
		err := i.forThreads(pid, func(tid int) error {
			return linux.SetScheduling(tid, linux.Scheduling{Policy: linux.PolicyIdle})
		})
		if err != nil {
			h.miss("it yields to other work", "%v", err)
		}
	}
	i.confine(h, pid)
}

// slack lets the process's timers expire at their time and not up to 50 µs
// later. Its children inherit it.
func (i *Isolator) slack(h *holding, pid int) {
	err := i.forThreads(pid, func(tid int) error {
		return writeFile(i.host.file("proc", strconv.Itoa(tid), "timerslack_ns"), "1")
	})
	if err != nil {
		h.miss("timers that expire on time", "%v", err)
	}
}

// forThreads calls do for every thread of a process. A thread that ended
// meanwhile is no error.
func (i *Isolator) forThreads(pid int, do func(tid int) error) error {
	entries, err := os.ReadDir(i.host.file("proc", strconv.Itoa(pid), "task"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if err := do(tid); err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Reserve gives a thread of a real-time workload a reservation of its own,
// beside those that the workload has. Errors: ErrUnknown, ErrInvalid, and
// ErrOverCommitted where we or the kernel refuse.
func (i *Isolator) Reserve(id string, tid int, r Reservation) error {
	defer i.change()()
	h, ok := i.held[id]
	if !ok {
		return fmt.Errorf("workload %s %w: prepare it first", id, ErrUnknown)
	}
	if h.spec.Class != Realtime {
		return invalid("workload %s: only real-time work has deadline reservations", id)
	}
	return i.reserve(h, tid, r)
}

// lives reports whether a thread can still run: a dead one that nobody has
// waited for is listed too, and holds no reservation.
func (i *Isolator) lives(tid int) bool {
	text, err := readFile(i.host.file("proc", strconv.Itoa(tid), "stat"))
	end := strings.LastIndexByte(text, ')')
	return err == nil && end >= 0 && !strings.HasPrefix(text[end+1:], " Z") && !strings.HasPrefix(text[end+1:], " X")
}

func (i *Isolator) reserve(h *holding, tid int, r Reservation) error {
	var others []Reservation
	for thread, have := range h.reserved {
		if thread != tid && i.lives(thread) {
			others = append(others, *have)
		}
	}
	if err := i.bound(h.spec.CPUs).Admit(others, r); err != nil {
		return fmt.Errorf("workload %s: %w", h.spec.ID, err)
	}
	err := linux.SetScheduling(tid, linux.Scheduling{
		Policy: linux.PolicyDeadline, ResetOnFork: true, Runtime: r.Runtime, Deadline: r.deadline(), Period: r.Period,
	})
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("workload %s: reserving %v of every %v %w: the kernel has %.4f CPUs reserved besides it",
			h.spec.ID, r.Runtime, r.Period, ErrOverCommitted, Utilisation(others))
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("workload %s: SCHED_DEADLINE: its CPUs %s are no partition of their own (see the workload's promises): %w", h.spec.ID, h.spec.CPUs, err)
	case err != nil:
		return fmt.Errorf("workload %s: SCHED_DEADLINE for thread %d: %w", h.spec.ID, tid, err)
	}
	h.reserved[tid] = &r
	return nil
}
