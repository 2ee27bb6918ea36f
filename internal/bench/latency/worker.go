package latency

import (
	"errors"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/linux"
)

// Worker says how the worker wakes.
type Worker struct {
	Period   time.Duration    `json:"period"`             // between wake-ups; 0 is DefaultPeriod
	Duration time.Duration    `json:"duration"`           // of the measurement
	Work     time.Duration    `json:"work,omitempty"`     // processor time used after each wake-up
	Policy   linux.Scheduling `json:"policy"`             // which the worker gives itself; the zero value leaves what it has
	Slack    bool             `json:"slack,omitempty"`    // keep the kernel's default timer slack of 50 µs
	CPU      int              `json:"cpu,omitempty"`      // 1 + the one CPU to stay on; 0: where the kernel likes
	Lateness time.Duration    `json:"lateness,omitempty"` // counts wake-ups that came later; 0: none
}

// DefaultPeriod is no multiple of the kernel's tick, so that wake-ups fall on
// every phase of it.
const DefaultPeriod = 5*time.Millisecond + 13*time.Microsecond + 700*time.Nanosecond

// warmUp is how many wake-ups are not recorded: they fault pages in.
const warmUp = 20

// mclOnFault locks pages when they are first touched, in the warm-up.
const mclOnFault = 4

// WorkerReport is what a worker measured.
type WorkerReport struct {
	Histogram Histogram        `json:"histogram"`
	Late      uint64           `json:"late"`    // wake-ups later than Lateness
	CPUTime   time.Duration    `json:"cpuTime"` // that the worker used
	Policy    linux.Scheduling `json:"policy"`  // under which it ran
	Locked    bool             `json:"locked"`  // its memory stayed in RAM
}

// run measures on the calling goroutine's thread.
func (w Worker) run() (*WorkerReport, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if !w.Slack {
		if err := linux.SetTimerSlack(1); err != nil {
			return nil, err
		}
	}
	if w.CPU > 0 {
		var set unix.CPUSet
		set.Set(w.CPU - 1)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return nil, err
		}
	}
	if w.Policy != (linux.Scheduling{}) {
		if err := linux.SetScheduling(0, w.Policy); err != nil {
			return nil, err
		}
	}
	report := &WorkerReport{Locked: unix.Mlockall(unix.MCL_CURRENT|unix.MCL_FUTURE|mclOnFault) == nil}
	var err error
	if report.Policy, err = linux.GetScheduling(0); err != nil {
		return nil, err
	}
	period := int64(w.Period)
	if period <= 0 {
		period = int64(DefaultPeriod)
	}
	count := int64(w.Duration) / period
	if count < 1 {
		return nil, errors.New("the measurement is shorter than the time between two wake-ups")
	}
	before := linux.ThreadCPUTime()
	w.wake(report, period, count)
	report.CPUTime = linux.ThreadCPUTime() - before
	return report, nil
}

func (w Worker) wake(report *WorkerReport, period, count int64) {
	late := make([]time.Duration, 0, count)
	next := linux.Monotonic() + period
	for i := -int64(warmUp); i < count; i++ {
		linux.SleepUntil(next)
		if by := time.Duration(linux.Monotonic() - next); i >= 0 {
			late = append(late, by)
		}
		if w.Work > 0 {
			Spend(w.Work)
		}
		// A wake-up that comes after the next was due counts once; the
		// wake-ups it swallowed are not counted again as zero.
		for next += period; next <= linux.Monotonic(); next += period {
			i++
		}
	}
	for _, by := range late {
		report.Histogram.Record(by)
		if w.Lateness > 0 && by > w.Lateness {
			report.Late++
		}
	}
}
