package isolate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"oscine.dev/oscine/internal/object"
)

// defaultSlice is the cgroup that holds all of the product's.
const defaultSlice = "oscine.slice"

// controllers are those that the classes use, with what falls away without.
var controllers = map[string]string{
	"cpu":     "processors by importance of the classes",
	"cpuset":  "real-time CPUs free of other work",
	"memory":  "memory limits and protection",
	"io":      "disk time by class",
	"pids":    "a bound on processes",
	"hugetlb": "a bound on huge pages",
}

// Slices are the limits of the classes.
type Slices struct {
	System, Realtime, Interactive, Batch SliceLimits
}

// SliceLimits bound one class as a whole. A zero field takes the default for
// the class and machine, a negative one sets nothing.
type SliceLimits struct {
	CPUWeight  int64 `json:"cpuWeight,omitempty"` // 1 to 10000
	IOWeight   int64 `json:"ioWeight,omitempty"`  // 1 to 10000
	MemoryMin  int64 `json:"memoryMin,omitempty"` // bytes that reclaim never takes
	MemoryLow  int64 `json:"memoryLow,omitempty"` // bytes that reclaim takes last
	MemoryHigh int64 `json:"memoryHigh,omitempty"`
	PIDs       int64 `json:"pids,omitempty"` // processes and threads
}

// withDefaults fills zero fields for a machine of so many bytes of memory.
func (s Slices) withDefaults(memory int64) Slices {
	fill := func(l *SliceLimits, d SliceLimits) {
		for _, f := range []struct{ have, want *int64 }{
			{&l.CPUWeight, &d.CPUWeight}, {&l.IOWeight, &d.IOWeight}, {&l.MemoryMin, &d.MemoryMin},
			{&l.MemoryLow, &d.MemoryLow}, {&l.MemoryHigh, &d.MemoryHigh}, {&l.PIDs, &d.PIDs},
		} {
			if *f.have == 0 {
				*f.have = *f.want
			}
		}
	}
	fill(&s.System, SliceLimits{CPUWeight: 1000, IOWeight: 500, MemoryMin: min(256<<20, memory/8),
		MemoryHigh: min(max(384<<20, memory/4), memory*3/4)})
	fill(&s.Realtime, SliceLimits{CPUWeight: 10000, IOWeight: 1000})
	fill(&s.Interactive, SliceLimits{CPUWeight: 1000, IOWeight: 500, MemoryLow: memory / 2})
	// Batch is pushed into reclaim before the machine is short.
	fill(&s.Batch, SliceLimits{CPUWeight: -1, IOWeight: 10, MemoryHigh: memory - max(memory/8, min(512<<20, memory/4)), PIDs: 32768})
	return s
}

func (s *Slices) of(c object.Class) SliceLimits {
	switch c {
	case System:
		return s.System
	case Realtime:
		return s.Realtime
	case Interactive:
		return s.Interactive
	}
	return s.Batch
}

func allClasses() []object.Class { return []object.Class{System, Realtime, Interactive, Batch} }

// makeSlices makes the product's cgroup and one for each class.
func (i *Isolator) makeSlices() []Gap {
	gaps := i.delegate()
	limits := i.o.Slices.withDefaults(i.host.memoryTotal())
	var protect, spare int64
	for _, c := range allClasses() {
		l := limits.of(c)
		protect += max(l.MemoryMin, 0)
		spare += max(l.MemoryLow, 0)
		gaps = append(gaps, i.limitSlice(filepath.Join(i.o.Slice, string(c)), c, l)...)
	}
	// A cgroup protects no more than those above it do.
	set := func(file string, value int64) {
		if err := i.cg.set(i.o.Slice, file, strconv.FormatInt(value, 10)); err != nil {
			gaps = append(gaps, Gap{"memory protection", err.Error()})
		}
	}
	set("memory.min", protect)
	set("memory.low", spare)
	if i.o.Own {
		gaps = append(gaps, i.adoptDaemon()...)
	}
	return gaps
}

// delegate makes the cgroups and hands the controllers down to the leaves.
func (i *Isolator) delegate() []Gap {
	var names []string
	for name := range controllers {
		names = append(names, name)
	}
	missing, err := i.cg.delegate("", names)
	var gaps []Gap
	for _, name := range missing {
		gaps = append(gaps, Gap{controllers[name], "the kernel's root cgroup has no controller " + name})
	}
	groups := []string{i.o.Slice}
	for _, c := range allClasses() {
		groups = append(groups, filepath.Join(i.o.Slice, string(c)))
	}
	for _, group := range groups {
		err = errors.Join(err, i.cg.make(group))
		_, e := i.cg.delegate(group, names)
		err = errors.Join(err, e)
	}
	if err != nil {
		gaps = append(gaps, Gap{"classes", "the slices could not be made: " + err.Error()})
	}
	return gaps
}

func (i *Isolator) limitSlice(group string, c object.Class, l SliceLimits) []Gap {
	var gaps []Gap
	set := func(guarantee, file, value string) {
		err := i.cg.set(group, file, value)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("this kernel has no %s", file)
		}
		if err != nil {
			gaps = append(gaps, Gap{guarantee, fmt.Sprintf("%s: %v", c, err)})
		}
	}
	number := func(guarantee, file string, value int64) {
		if value > 0 {
			set(guarantee, file, strconv.FormatInt(value, 10))
		}
	}
	if c == Batch {
		set("batch yields within milliseconds", "cpu.idle", "1")
	}
	number("processors by importance of the classes", "cpu.weight", l.CPUWeight)
	number("disk time by class", "io.weight", l.IOWeight)
	number("memory protection", "memory.min", l.MemoryMin)
	number("memory protection", "memory.low", l.MemoryLow)
	number("memory is bounded by class", "memory.high", l.MemoryHigh)
	number("a bound on processes", "pids.max", l.PIDs)
	if c == Realtime {
		set("real-time memory never swapped", "memory.swap.max", "0")
	}
	return gaps
}

// adoptDaemon moves this process into the system slice, where batch work
// yields to it and reclaim spares it.
func (i *Isolator) adoptDaemon() []Gap {
	group := filepath.Join(i.o.Slice, string(System), "oscined")
	err := i.cg.make(group)
	if err == nil {
		err = writeFile(i.cg.path(group, "cgroup.procs"), strconv.Itoa(os.Getpid()))
	}
	if err != nil {
		return []Gap{{"the daemon's own protection", err.Error()}}
	}
	return nil
}
