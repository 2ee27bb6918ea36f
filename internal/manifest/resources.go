package manifest

// CPUPolicy says whether other workloads may run on the same cores.
type CPUPolicy string

// The CPU policies.
const (
	CPUShared    CPUPolicy = "shared"
	CPUExclusive CPUPolicy = "exclusive"
)

// Resources is the part of the machine that a workload or model asks for.
type Resources struct {
	CPU       Quantity  `json:"cpu,omitzero"`        // cores; "500m" is half of one; absent: best effort
	CPUPolicy CPUPolicy `json:"cpuPolicy,omitempty"` // default shared, exclusive for realtime
	Memory    Quantity  `json:"memory,omitzero"`     // bytes, a hard limit; absent: unlimited
	PIDs      int       `json:"pids,omitempty"`      // processes and threads; default 1024
}

func (r *Resources) check(c *checker, at string, class Class) {
	c.oneOf(at+".cpuPolicy", string(r.CPUPolicy), string(CPUShared), string(CPUExclusive))
	milli, ok := r.CPU.MilliValue()
	switch {
	case !ok:
		c.bad(at+".cpu", "%s is out of range", r.CPU)
	case !r.CPU.IsZero() && milli <= 0:
		c.bad(at+".cpu", "must be more than 0, got %s", r.CPU)
	case milli > 1_000_000_000:
		c.bad(at+".cpu", "%s is more cores than any machine has", r.CPU)
	case (r.CPUPolicy == CPUExclusive || class == Realtime) && (milli == 0 || milli%1000 != 0):
		c.bad(at+".cpu", "exclusive cores are whole: write 1, 2, …, got %q", r.CPU)
	}
	if bytes, ok := r.Memory.Value(); !ok {
		c.bad(at+".memory", "%s is out of range", r.Memory)
	} else if !r.Memory.IsZero() && bytes < 1<<20 {
		c.bad(at+".memory", "must be at least 1Mi, got %s", r.Memory)
	}
	if r.PIDs < 0 {
		c.bad(at+".pids", "must not be negative, got %d", r.PIDs)
	}
}
