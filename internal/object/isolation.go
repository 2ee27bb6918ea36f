package object

import (
	"fmt"
	"time"
)

// IsolationStatus is what an object was promised and what it gets, measured.
type IsolationStatus struct {
	ID        string              `json:"id"`
	Class     Class               `json:"class"`
	Promises  []Promise           `json:"promises,omitempty"`
	Pressure  map[string]Pressure `json:"pressure,omitempty"` // by cpu, memory, io
	Throttled Duration            `json:"throttled"`          // by its own quota, since its cgroup exists
	CPUTime   Duration            `json:"cpuTime"`
	// RunDelay is how long its threads have waited for a processor when they
	// could have run, in all and for each time they were given one.
	RunDelay   Duration `json:"runDelay"`
	MeanDelay  Duration `json:"meanDelay"`
	Wakeups    *Wakeups `json:"wakeups,omitempty"`    // nil where this host cannot measure them
	Interrupts []string `json:"interrupts,omitempty"` // that still come on its own CPUs
	Incidents
	// Reserved is the utilisation by DEADLINE reservations, Reservable their
	// bound, in CPUs.
	Reserved   float64 `json:"reserved,omitempty"`
	Reservable float64 `json:"reservable,omitempty"`
	FrozenFor  string  `json:"frozenFor,omitempty"` // why it is held back now
}

// Promise is one thing promised and whether it holds.
type Promise struct {
	What   string `json:"what"`
	Held   bool   `json:"held"`
	Detail string `json:"detail,omitempty"` // measured, or the reason why it does not hold
}

// Pressure is pressure stall information: the part of the time in which some
// or all threads waited for a resource. See Documentation/accounting/psi.rst.
type Pressure struct {
	Some10 float64  `json:"some10"` // percent of the last ten seconds
	Full10 float64  `json:"full10"`
	Some   Duration `json:"some"` // in all
	Full   Duration `json:"full"`
}

// Wakeups is how long a workload's threads waited for a processor after they
// were woken, since its cgroup was made.
type Wakeups struct {
	Count  uint64   `json:"count"`
	P50    Duration `json:"p50"`
	P99    Duration `json:"p99"`
	Max    Duration `json:"max"`
	Missed uint64   `json:"missed,omitempty"` // longer than the objective
}

// String tells the distribution in one line.
func (w *Wakeups) String() string {
	round := func(d Duration) time.Duration { return d.Std().Round(100 * time.Nanosecond) }
	return fmt.Sprintf("half of %d within %v, 99 %% within %v, all within %v", w.Count, round(w.P50), round(w.P99), round(w.Max))
}

// Incidents are what the kernel counts of an object that came to its limits.
type Incidents struct {
	ForksRefused uint64 `json:"forksRefused,omitempty"` // at its bound on processes and threads
	Killed       uint64 `json:"killed,omitempty"`       // processes, at its memory limit
	Reclaimed    uint64 `json:"reclaimed,omitempty"`    // times that its memory limit made it give memory back
	// Missed counts the seconds in which its threads waited longer for a
	// processor than its objective allows, in the slowest hundredth of wake-ups
	// where these are measured, else on average; Observed all seconds in which
	// they ran.
	Missed   uint64 `json:"missed,omitempty"`
	Observed uint64 `json:"observed,omitempty"`
}
