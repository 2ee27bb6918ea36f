package object

import "time"

// Reservation is processor time that the kernel guarantees under
// SCHED_DEADLINE: Runtime in every Period, done within Deadline of its start;
// see Documentation/scheduler/sched-deadline.rst.
type Reservation struct {
	Runtime  Duration `json:"runtime"`           // in every period
	Period   Duration `json:"period"`            // from one start to the next
	Deadline Duration `json:"deadline,omitzero"` // default: the period
}

// The kernel's bounds: the resolution of a runtime, and
// sched_deadline_period_{min,max}_us.
const (
	minRuntime = 1024 * time.Nanosecond
	minPeriod  = 100 * time.Microsecond
	maxPeriod  = 1 << 22 * time.Microsecond
)

// Utilisation is the share of one CPU that is reserved.
func (r *Reservation) Utilisation() float64 {
	if r.Period <= 0 {
		return 0
	}
	return float64(r.Runtime) / float64(r.Period)
}

func (r *Reservation) check(c *Checker, at string, class Class) {
	if r == nil {
		return
	}
	if class != Realtime {
		c.Bad(at, "only realtime work reserves processor time; leave it out or change the class")
	}
	runtime, period, deadline := r.Runtime.Std(), r.Period.Std(), r.Deadline.Std()
	if deadline == 0 {
		deadline = period
	}
	if period < minPeriod || period > maxPeriod {
		c.Bad(at+".period", "must be from %v to %v, got %v", minPeriod, maxPeriod, period)
	}
	if runtime < minRuntime {
		c.Bad(at+".runtime", "must be at least %v, got %v", minRuntime, runtime)
	}
	if deadline > period {
		c.Bad(at+".deadline", "must be at most the period of %v, got %v", period, deadline)
	}
	if runtime > deadline && period > 0 {
		c.Bad(at+".runtime", "must be at most the deadline of %v, got %v: %.0f %% of a CPU until then", deadline, runtime, 100*float64(runtime)/float64(deadline))
	}
}
