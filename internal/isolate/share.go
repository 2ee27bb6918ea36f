package isolate

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/hardware"
)

// Share tells the kernel which CPUs a workload without any of its own uses from
// now on, as others take and give back theirs. Errors: ErrUnknown, ErrInvalid.
func (i *Isolator) Share(id string, cpus hardware.Set) error {
	i.mu.Lock()
	defer i.mu.Unlock()
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
		if err := i.cg.set(h.group(), "cpuset.cpus", cpus.String()); err != nil {
			return fmt.Errorf("workload %s: move it to CPUs %s: %w", id, cpus, err)
		}
		return nil
	}
	for _, pid := range h.pids {
		i.confine(h, pid)
	}
	return nil
}

// confine keeps a workload to its CPUs and share without cgroup version 2: by
// the cgroups of version 1 that the container runtime made, else by the
// affinity of each of its threads.
func (i *Isolator) confine(h *holding, pid int) {
	legacy := func(controller, file string) string {
		return i.host.file("sys/fs/cgroup", controller, h.group(), file)
	}
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
