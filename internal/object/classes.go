package object

// MachineClasses bounds the latency classes, each as a whole. What is left out
// takes the default for the machine's size.
type MachineClasses struct {
	System      ClassLimits `json:"system,omitzero"` // the product's own services
	Realtime    ClassLimits `json:"realtime,omitzero"`
	Interactive ClassLimits `json:"interactive,omitzero"`
	Batch       ClassLimits `json:"batch,omitzero"`
	// Scheduler is stock (default) or sched_ext, a second one for the same
	// classes.
	Scheduler string `json:"scheduler,omitempty"`
}

// ClassLimits bound one class; see cgroup-v2.rst for what each means.
type ClassLimits struct {
	CPUWeight  int64    `json:"cpuWeight,omitempty"` // 1 to 10000, against the other classes
	IOWeight   int64    `json:"ioWeight,omitempty"`  // 1 to 10000
	MemoryMin  Quantity `json:"memoryMin,omitzero"`  // never reclaimed
	MemoryLow  Quantity `json:"memoryLow,omitzero"`  // reclaimed last
	MemoryHigh Quantity `json:"memoryHigh,omitzero"` // reclaimed from here on
	PIDs       int64    `json:"pids,omitempty"`      // processes and threads
}

func (m *MachineClasses) check(c *Checker, at string) {
	c.OneOf(at+".scheduler", m.Scheduler, "stock", "sched_ext")
	m.System.check(c, at+".system")
	m.Realtime.check(c, at+".realtime")
	m.Interactive.check(c, at+".interactive")
	m.Batch.check(c, at+".batch")
	if m.Batch.CPUWeight != 0 {
		c.Bad(at+".batch.cpuWeight", "batch runs when no other class wants to; it has no weight")
	}
}

func (l *ClassLimits) check(c *Checker, at string) {
	c.Number(at+".cpuWeight", l.CPUWeight, 1, 10000)
	c.Number(at+".ioWeight", l.IOWeight, 1, 10000)
	for name, q := range map[string]Quantity{"memoryMin": l.MemoryMin, "memoryLow": l.MemoryLow, "memoryHigh": l.MemoryHigh} {
		if bytes, ok := q.Value(); !ok || bytes < 0 || (!q.IsZero() && bytes < 1<<20) {
			c.Bad(at+"."+name, "must be at least 1Mi, got %s", q)
		}
	}
	c.Number(at+".pids", int64(l.PIDs), 1, maxPIDs)
}
