package isolate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/object"
)

func (h *holding) group() string {
	return filepath.Join(h.slice, string(h.spec.Class), h.spec.ID)
}

// miss notes a promise that is not kept.
func (h *holding) miss(guarantee, format string, args ...any) {
	h.unheld = append(h.unheld, Gap{guarantee, fmt.Sprintf(format, args...)})
}

// makeLeaf makes a workload's cgroup and sets what its class means for it. The
// container runtime finds it there and adds the hard limits.
func (i *Isolator) makeLeaf(h *holding) error {
	group, s := h.group(), &h.spec
	if err := i.cg.make(group); err != nil {
		return fmt.Errorf("workload %s: make its cgroup: %w", s.ID, err)
	}
	i.cg.forget(group)
	set := func(guarantee, file, value string) {
		if err := i.cg.set(group, file, value); err != nil {
			h.miss(guarantee, "%v", err)
		}
	}
	if !s.MemoryNodes.Empty() {
		set("memory on nodes "+s.MemoryNodes.String(), "cpuset.mems", s.MemoryNodes.String())
	}
	if s.MilliCPU > 0 && s.Class != Batch { // weights mean nothing inside an idle group's leaves beyond their ratio
		set("its weight among its class", "cpu.weight", strconv.FormatInt(weight(s.MilliCPU), 10))
	}
	protect, spare := int64(0), s.MemoryLow
	if s.Class == Realtime {
		protect = s.Memory
		set("never swapped", "memory.swap.max", "0")
	}
	if protect > 0 {
		set("memory never reclaimed", "memory.min", strconv.FormatInt(protect, 10))
	}
	if spare > 0 {
		set("memory spared by reclaim", "memory.low", strconv.FormatInt(spare, 10))
	}
	i.boundHugePages(h)
	i.protectClasses()
	if s.Exclusive {
		i.partition(h)
	} else if !s.CPUs.Empty() {
		set("CPUs "+s.CPUs.String(), "cpuset.cpus", s.CPUs.String())
	}
	return nil
}

// weight turns thousandths of a CPU into cpu.weight: 100 for one CPU.
func weight(milli int64) int64 { return min(max(milli/10, 1), 10000) }

// protectClasses widens the protection of the cgroups above to the sum below.
func (i *Isolator) protectClasses() {
	limits := i.o.Slices.withDefaults(i.host.memoryTotal())
	var allMin, allLow int64
	for _, c := range allClasses() {
		l := limits.of(c)
		protect, spare := max(l.MemoryMin, 0), max(l.MemoryLow, 0)
		for _, h := range i.held {
			if h.spec.Class == c {
				spare += h.spec.MemoryLow
				if c == Realtime {
					protect += h.spec.Memory
				}
			}
		}
		allMin, allLow = allMin+protect, allLow+spare
		i.raise(filepath.Join(i.o.Slice, string(c)), protect, spare)
	}
	i.raise(i.o.Slice, allMin, allLow)
}

func (i *Isolator) raise(group string, protect, spare int64) {
	for file, value := range map[string]int64{"memory.min": protect, "memory.low": spare} {
		text := strconv.FormatInt(value, 10)
		if wrote, ok := i.cg.wrote(group, file); (ok && wrote == text) || (!ok && value == 0) {
			continue
		}
		if err := i.cg.set(group, file, text); err != nil {
			i.log.Warn("isolation", "cgroup", group, "error", err)
		}
	}
}

// partition gives a workload CPUs that nothing else runs on. One
// that needs load balancing among its CPUs, or DEADLINE, which needs a root
// domain of its own, gets a partition of type root, others one of type
// isolated, which the kernel's own housekeeping leaves alone too. See
// "Cpuset Interface Files" in Documentation/admin-guide/cgroup-v2.rst.
func (i *Isolator) partition(h *holding) {
	group, s := h.group(), &h.spec
	kind := "isolated"
	if s.Class != Realtime || s.CPUs.Len() > 1 || s.Deadline != nil {
		kind = "root"
	}
	err := i.listExclusive(s.Class)
	for _, f := range [][2]string{{"cpuset.cpus", s.CPUs.String()}, {"cpuset.cpus.exclusive", s.CPUs.String()}, {"cpuset.cpus.partition", kind}} {
		if err == nil {
			err = i.cg.set(group, f[0], f[1])
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("this kernel has no cpuset.cpus.exclusive: Linux 6.7 is the first with it")
	}
	if err != nil {
		h.miss(guaranteeCPUs, "%v", err)
		return
	}
	if text, err := i.cg.get(group, "cpuset.cpus.partition"); err != nil || strings.Contains(text, "invalid") {
		h.miss(guaranteeCPUs, "the kernel refuses the partition: %s", strings.TrimSpace(text+errorText(err)))
	}
	if err := i.keepIdle(h); err != nil {
		h.miss(guaranteeIdle, "%v", err)
	}
}

// idleGroup is the cgroup beside a workload's that holds the SMT siblings of
// its CPUs, and never a process. It is a partition of its own because a
// DEADLINE reservation demands that a thread may run on all of its partition.
func (h *holding) idleGroup() string { return h.group() + ".siblings" }

// keepIdle sets the SMT siblings of a workload's CPUs aside.
func (i *Isolator) keepIdle(h *holding) error {
	group, list := h.idleGroup(), h.spec.Idle.String()
	if h.spec.Idle.Empty() {
		return i.dropIdle(h)
	}
	err := i.cg.make(group)
	for _, f := range [][2]string{{"cpuset.cpus", list}, {"cpuset.cpus.exclusive", list}, {"cpuset.cpus.partition", "isolated"}} {
		if err == nil {
			err = i.cg.set(group, f[0], f[1])
		}
	}
	if err != nil {
		return err
	}
	if text, err := i.cg.get(group, "cpuset.cpus.partition"); err != nil || strings.Contains(text, "invalid") {
		return fmt.Errorf("the kernel refuses the partition: %s", strings.TrimSpace(text+errorText(err)))
	}
	return nil
}

// dropIdle gives them back.
func (i *Isolator) dropIdle(h *holding) error { return i.cg.remove(h.idleGroup()) }

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return " " + err.Error()
}

// listExclusive lists the CPUs of all workloads that have their own as
// exclusive in the cgroups above those of a class.
func (i *Isolator) listExclusive(c object.Class) error {
	var all, class hardware.Set
	for _, of := range allClasses() {
		cpus := i.inheritedCPUs(of)
		for _, h := range i.held {
			if h.spec.Class == of {
				cpus = cpus.Or(h.spec.own())
			}
		}
		all = all.Or(cpus)
		if of == c {
			class = cpus
		}
	}
	for _, g := range []struct {
		group string
		cpus  hardware.Set
	}{{i.o.Slice, all}, {filepath.Join(i.o.Slice, string(c)), class}} {
		group, list := g.group, g.cpus.String()
		if list == "" {
			list = "\n" // an empty write would not reach the kernel
		}
		if wrote, ok := i.cg.wrote(group, "cpuset.cpus.exclusive"); ok && wrote == list {
			continue
		}
		if err := i.cg.set(group, "cpuset.cpus.exclusive", list); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes cgroups of released workloads. One that still has processes
// stays until they are gone: those are the container runtime's to end.
func (i *Isolator) sweep() {
	i.leftovers = slices.DeleteFunc(i.leftovers, func(group string) bool {
		for _, h := range i.held {
			if h.group() == group {
				return true // prepared again
			}
		}
		return i.cg.remove(group) == nil
	})
}

// inheritedCPUs are those of workloads of a class that an earlier process
// prepared, which run on and are not prepared again yet.
func (i *Isolator) inheritedCPUs(c object.Class) hardware.Set {
	var cpus hardware.Set
	entries, err := os.ReadDir(i.cg.path(i.o.Slice, string(c)))
	if err != nil {
		return cpus
	}
	for _, e := range entries {
		if _, ok := i.held[e.Name()]; ok || !e.IsDir() {
			continue
		}
		list, err := readList(i.cg.path(i.o.Slice, string(c), e.Name(), "cpuset.cpus.exclusive"))
		if err == nil {
			cpus = cpus.Or(list)
		}
	}
	return cpus
}

// removeLeaf takes a workload's cgroup back.
func (i *Isolator) removeLeaf(h *holding) error {
	group := h.group()
	if h.spec.Exclusive && exists(i.cg.path(group, "cpuset.cpus.partition")) {
		if err := writeFile(i.cg.path(group, "cpuset.cpus.partition"), "member"); err != nil {
			return fmt.Errorf("workload %s: give its CPUs back: %w", h.spec.ID, err)
		}
		if err := writeFile(i.cg.path(group, "cpuset.cpus.exclusive"), "\n"); err != nil {
			return fmt.Errorf("workload %s: give its CPUs back: %w", h.spec.ID, err)
		}
	}
	if err := i.dropIdle(h); err != nil {
		return fmt.Errorf("workload %s: give the siblings of its CPUs back: %w", h.spec.ID, err)
	}
	i.cg.forget(group)
	i.leftovers = append(i.leftovers, group)
	i.sweep()
	i.protectClasses()
	if h.spec.Exclusive {
		return i.listExclusive(h.spec.Class)
	}
	return nil
}
