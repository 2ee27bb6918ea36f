package classes

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"oscine.dev/oscine/internal/bench/latency"
	"oscine.dev/oscine/internal/isolate"
)

// Bounds of what may be asked for: a load takes memory for each thread, a
// measurement eight bytes for each wake-up.
const (
	maxThreads = 4096
	maxWakeups = 10_000_000
)

// Options say what to measure. Command is required.
type Options struct {
	Classes []string // of Names; empty: all but batch
	// Schedulers to measure each class under, of Schedulers; empty: the stock
	// one, or the one that Host has.
	Schedulers []string
	Loads      []string      // of latency.LoadKinds; empty: measure without load only
	Threads    int           // of the load; 0: two for each CPU
	Duration   time.Duration // of each measurement
	Period     time.Duration // between wake-ups; 0: latency.DefaultPeriod
	Command    []string      // runs latency.RunChild with the argument that is added
	Host       *Host         // nil: a machine whose classes nobody keeps
	Progress   func(line string)
}

// withDefaults fills what was left to us.
func (o Options) withDefaults() Options {
	if len(o.Classes) == 0 {
		o.Classes = []string{Default, string(isolate.Interactive), string(isolate.Realtime)}
	}
	if len(o.Schedulers) == 0 {
		o.Schedulers = []string{Stock}
		if o.Host != nil {
			o.Schedulers = []string{o.Host.scheduler()}
		}
	}
	if o.Period == 0 {
		o.Period = latency.DefaultPeriod
	}
	return o
}

// Check says what is wrong with the options before anything begins.
func (o Options) Check() error {
	for _, list := range []struct {
		what         string
		given, known []string
	}{{"class", o.Classes, Names()}, {"load", o.Loads, latency.LoadKinds()}, {"scheduler", o.Schedulers, Schedulers()}} {
		for i, name := range list.given {
			if !slices.Contains(list.known, name) {
				return fmt.Errorf("there is no %s %q: choose of %s", list.what, name, strings.Join(list.known, ", "))
			}
			if slices.Contains(list.given[:i], name) {
				return fmt.Errorf("%s %s is asked for twice", list.what, name)
			}
		}
	}
	o = o.withDefaults()
	switch {
	case o.Threads < 0 || o.Threads > maxThreads:
		return fmt.Errorf("a load of %d threads: give 1 to %d, or 0 for two on each CPU", o.Threads, maxThreads)
	case o.Period < 0:
		return fmt.Errorf("the period %v is negative", o.Period)
	case o.Duration/10 < o.Period:
		return fmt.Errorf("%v is too short a measurement: at least ten wake-ups, %v, are needed", o.Duration, 10*o.Period)
	case int64(o.Duration/o.Period) > maxWakeups:
		return fmt.Errorf("%v are %d wake-ups, more than %d: give a longer period", o.Duration, o.Duration/o.Period, maxWakeups)
	}
	return nil
}

// Total is how long the measurements take together.
func (o Options) Total() time.Duration {
	o = o.withDefaults()
	each := len(o.Classes) * len(o.Schedulers)
	if len(o.Loads) > 0 {
		each *= 2
	}
	return time.Duration(min(float64(each)*float64(o.Duration), float64(1<<62)))
}
