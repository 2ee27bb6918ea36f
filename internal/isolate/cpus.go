package isolate

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/hardware"
)

// SetCPUs tells the kernel which CPUs a workload without any of its own uses
// from now on, as others take and give back theirs. Errors: ErrUnknown,
// ErrInvalid.
func (i *Isolator) SetCPUs(id string, cpus hardware.Set) error {
	defer i.change()()
	h, ok := i.held[id]
	switch {
	case !ok:
		return fmt.Errorf("workload %s %w: prepare it first", id, ErrUnknown)
	case h.spec.Exclusive:
		return invalid("workload %s has CPUs of its own", id)
	case cpus.Empty() || h.spec.CPUs.Equal(cpus):
		return nil
	}
	h.spec.CPUs = cpus
	if i.host.cgroups != "" {
		if err := i.move(h, cpus); err != nil {
			return fmt.Errorf("workload %s: move it to CPUs %s: %w", id, cpus, err)
		}
		return nil
	}
	for _, pid := range h.pids {
		i.confine(h, pid)
	}
	return nil
}

// move gives a workload's group other CPUs.
func (i *Isolator) move(h *holding, cpus hardware.Set) error {
	before, known := i.effective(h.group())
	if err := i.cg.set(h.group(), "cpuset.cpus", cpus.String()); err != nil {
		return err
	}
	if known {
		h.before, h.moved = before, time.Now()
		i.gather(h)
	}
	return nil
}

func (i *Isolator) effective(group string) (hardware.Set, bool) {
	text, err := i.cg.get(group, "cpuset.cpus.effective")
	cpus, parseErr := hardware.ParseList(text)
	return cpus, err == nil && parseErr == nil
}

// gather sends threads after the others of their group. The kernel misses one
// that is being cloned while it moves the rest: it takes the CPUs of the thread
// that clones it, which may be the old ones still, and keeps them (Linux 7.2,
// cpuset_fork; a third of all moves of a workload that clones one each
// millisecond, on the rt kernel). What a move leaves behind in the last moment
// is found by the next Verify.
func (i *Isolator) gather(h *holding) {
	now, known := i.effective(h.group())
	text, err := i.cg.get(h.group(), "cgroup.threads")
	if err != nil || !known || h.spec.Exclusive {
		return
	}
	for _, field := range strings.Fields(text) {
		tid, err := strconv.Atoi(field)
		var mask unix.CPUSet
		if err != nil || unix.SchedGetaffinity(tid, &mask) != nil {
			continue // ended meanwhile
		}
		may := cpusOf(&mask)
		if may.In(now) && (now.Equal(h.before) || !may.Equal(h.before)) {
			continue // with the others, or where it put itself
		}
		mask.Fill() // the kernel keeps it to the group's CPUs
		if err := unix.SchedSetaffinity(tid, &mask); err == nil {
			i.log.Debug("isolation", "thread", tid, "was left on", may.String(), "goes to", now.String())
		}
	}
	if time.Since(h.moved) > time.Second {
		h.before = hardware.Set{}
	}
}

// confine keeps a workload to its CPUs and weight without cgroup version 2: by
// the cgroups of version 1 that the container runtime made, else by the
// affinity of each of its threads.
func (i *Isolator) confine(h *holding, pid int) {
	legacy := func(controller, file string) string { return i.legacy(controller, h.group(), file) }
	if h.spec.MilliCPU > 0 {
		i.try(legacy("cpu", "cpu.shares"), strconv.FormatInt(max(h.spec.MilliCPU*1024/1000, 2), 10))
	}
	if h.spec.CPUs.Empty() {
		return
	}
	if exists(legacy("cpuset", "cgroup.procs")) {
		if err := writeFile(legacy("cpuset", "cpuset.cpus"), h.spec.CPUs.String()); err != nil {
			h.miss("CPUs "+h.spec.CPUs.String(), "%v", err)
		}
		return
	}
	err := i.forThreads(pid, func(tid int) error { return unix.SchedSetaffinity(tid, cpuSet(h.spec.CPUs)) })
	if err != nil && !errors.Is(err, unix.ESRCH) {
		h.miss("CPUs "+h.spec.CPUs.String(), "%v", err)
	}
}
