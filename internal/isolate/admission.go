package isolate

import (
	"fmt"
	"time"
)

// Reservation is processor time that SCHED_DEADLINE guarantees a thread:
// Runtime in every Period, spent within Deadline of its start; see
// Documentation/scheduler/sched-deadline.rst.
type Reservation struct {
	Runtime  time.Duration `json:"runtime"`
	Deadline time.Duration `json:"deadline"` // 0: Period
	Period   time.Duration `json:"period"`
}

// The kernel's own bounds: sched_dl_period_{min,max}_us and the resolution of
// a runtime.
const (
	minRuntime = 1024 * time.Nanosecond
	minPeriod  = 100 * time.Microsecond
	maxPeriod  = 1 << 22 * time.Microsecond
)

func (r Reservation) deadline() time.Duration {
	if r.Deadline == 0 {
		return r.Period
	}
	return r.Deadline
}

func (r Reservation) check() error {
	switch {
	case r.Period < minPeriod || r.Period > maxPeriod:
		return fmt.Errorf("%w: a reservation's period of %v is not between %v and %v", ErrInvalid, r.Period, minPeriod, maxPeriod)
	case r.Runtime < minRuntime:
		return fmt.Errorf("%w: a reservation's runtime of %v is less than %v", ErrInvalid, r.Runtime, minRuntime)
	case r.deadline() > r.Period || r.Runtime > r.deadline():
		return fmt.Errorf("%w: a reservation needs runtime ≤ deadline ≤ period, got %v, %v, %v", ErrInvalid, r.Runtime, r.deadline(), r.Period)
	}
	return nil
}

// unit is a whole CPU in the kernel's fixed point, BW_UNIT.
const unit = 1 << 20

// ratio is runtime/period in units, rounded down as the kernel does.
func ratio(runtime, period time.Duration) int64 {
	if period <= 0 {
		return 0
	}
	return int64(uint64(runtime) << 20 / uint64(period))
}

// Bound is how much of some CPUs may be reserved. Amounts are in 2^20ths of a
// CPU, the kernel's own fixed point, so that both admissions count alike.
type Bound struct {
	CPUs   int
	PerCPU int64 // sched_rt_runtime_us / sched_rt_period_us
	Taken  int64 // by the kernel's servers for ordinary tasks, on all CPUs
}

// Limit is what reservations may add up to.
func (b Bound) Limit() int64 { return int64(b.CPUs)*b.PerCPU - b.Taken }

// Utilisation adds reservations up as fractions of one CPU.
func Utilisation(all []Reservation) float64 {
	return float64(sum(all)) / unit
}

func sum(all []Reservation) int64 {
	var total int64
	for _, r := range all {
		total += ratio(r.Runtime, r.Period)
	}
	return total
}

// Admit refuses r where existing and r together could not all keep their
// deadlines: the utilisation must stay within Limit, which the kernel checks
// too, and the density (runtime by deadline) within the bound of Goossens,
// Funk and Baruah for global earliest-deadline-first, limit-(m-1)·max, which
// the kernel does not check. It returns ErrInvalid or ErrOverCommitted.
func (b Bound) Admit(existing []Reservation, r Reservation) error {
	if err := r.check(); err != nil {
		return err
	}
	all := append(append([]Reservation(nil), existing...), r)
	if total := sum(all); total > b.Limit() {
		return fmt.Errorf("reserving %v of every %v %w: %.4f of %.4f CPUs would be reserved",
			r.Runtime, r.Period, ErrOverCommitted, float64(total)/unit, float64(b.Limit())/unit)
	}
	var density, largest int64
	for _, one := range all {
		d := ratio(one.Runtime, one.deadline())
		density += d
		largest = max(largest, d)
	}
	if reach := b.Limit() - int64(b.CPUs-1)*largest; density > reach {
		return fmt.Errorf("reserving %v within %v %w: the density of %.4f passes %.4f, up to which every deadline on %d CPUs is kept",
			r.Runtime, r.deadline(), ErrOverCommitted, float64(density)/unit, float64(reach)/unit, b.CPUs)
	}
	return nil
}
