package classes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/bench/latency"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/isolate"
)

// Default is the class of a process that nobody has isolated: what stock Linux
// gives.
const Default = "default"

// Names lists the classes that can be measured.
func Names() []string {
	return []string{Default, string(isolate.Interactive), string(isolate.Realtime), string(isolate.Batch)}
}

// The back ends that schedule the classes.
const (
	Stock    = "stock"
	SchedExt = "sched_ext"
)

// Schedulers lists the back ends that can be measured.
func Schedulers() []string { return []string{Stock, SchedExt} }

// Options say what to measure. Command is required.
type Options struct {
	Classes []string // of Names; empty: all but batch
	// Schedulers to measure each class under, of Schedulers; empty: the stock
	// one.
	Schedulers []string
	Loads      []string      // of latency.LoadKinds; empty: measure without load only
	Threads    int           // of the load; 0: two for each CPU
	Duration   time.Duration // of each measurement
	Period     time.Duration // between wake-ups; 0: latency.DefaultPeriod
	Command    []string      // runs latency.RunChild with the argument that is added
	Progress   func(line string)
}

// Report is what was measured.
type Report struct {
	Kernel   string        `json:"kernel"`
	CPUs     int           `json:"cpus"`
	Period   time.Duration `json:"periodNs"`
	Duration time.Duration `json:"durationNs"` // of each
	Loads    []string      `json:"loads,omitempty"`
	Series   []Series      `json:"series"`
	Gaps     []isolate.Gap `json:"gaps,omitempty"` // what this machine could not be told
}

// Series is one class, with or without load.
type Series struct {
	Class     string               `json:"class"`
	Scheduler string               `json:"scheduler"`
	Loaded    bool                 `json:"loaded"`
	Policy    string               `json:"policy"` // under which the worker ran
	Locked    bool                 `json:"locked"` // its memory
	CPUs      string               `json:"cpus,omitempty"`
	Histogram *latency.Histogram   `json:"histogram,omitempty"`
	Load      *latency.LoadReport  `json:"load,omitempty"`
	Problem   string               `json:"problem,omitempty"` // why it could not be measured
	worker    latency.WorkerReport `json:"-"`
}

// Run measures every class, first alone, then beside the load.
func Run(ctx context.Context, o Options) (*Report, error) {
	if len(o.Classes) == 0 {
		o.Classes = []string{Default, string(isolate.Interactive), string(isolate.Realtime)}
	}
	for _, c := range o.Classes {
		if !slices.Contains(Names(), c) {
			return nil, fmt.Errorf("there is no class %q: choose of %s", c, strings.Join(Names(), ", "))
		}
	}
	if err := latency.CheckLoad(o.Loads); err != nil {
		return nil, err
	}
	if len(o.Schedulers) == 0 {
		o.Schedulers = []string{Stock}
	}
	for _, s := range o.Schedulers {
		if !slices.Contains(Schedulers(), s) {
			return nil, fmt.Errorf("there is no scheduler %q: choose of %s", s, strings.Join(Schedulers(), ", "))
		}
	}
	if o.Threads < 0 {
		return nil, fmt.Errorf("a load of %d threads: give a number above 0, or 0 for two on each CPU", o.Threads)
	}
	if o.Period < 0 {
		return nil, fmt.Errorf("the period %v is negative", o.Period)
	}
	if o.Period == 0 {
		o.Period = latency.DefaultPeriod
	}
	if o.Duration < 10*o.Period {
		return nil, fmt.Errorf("%v is too short a measurement: at least ten wake-ups, %v, are needed", o.Duration, 10*o.Period)
	}
	cpus, err := onlineCPUs()
	if err != nil {
		return nil, err
	}
	r := &run{o: o, cpus: cpus, report: &Report{
		Kernel: kernel(), CPUs: cpus.Len(), Period: o.Period, Duration: o.Duration, Loads: o.Loads,
	}}
	if unix.Geteuid() != 0 {
		r.report.Gaps = append(r.report.Gaps, isolate.Gap{Guarantee: "policies, cgroups and locked memory", Reason: "not run as root"})
	}
	for _, s := range o.Schedulers {
		if err := r.under(ctx, s); err != nil {
			return r.report, err
		}
	}
	return r.report, nil
}

// under measures all classes under one back end.
func (r *run) under(ctx context.Context, scheduler string) (err error) {
	slice := fmt.Sprintf("oscine-bench-%d.slice", os.Getpid())
	if r.iso, err = isolate.Open(isolate.Options{Slice: slice, SchedExt: scheduler == SchedExt}); err != nil {
		return err
	}
	for _, g := range r.iso.Gaps() {
		if !slices.Contains(r.report.Gaps, g) {
			r.report.Gaps = append(r.report.Gaps, g)
		}
	}
	// One that could not be started is told by the gaps, and measured by nobody.
	if r.scheduler = scheduler; scheduler == Stock || r.iso.SchedExt() {
		err = r.all(ctx)
	}
	return errors.Join(err, r.iso.Remove(), r.iso.Close())
}

func onlineCPUs() (hardware.Set, error) {
	raw, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return hardware.Set{}, err
	}
	return hardware.ParseList(strings.TrimSpace(string(raw)))
}

func kernel() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(name.Release[:])
}

type run struct {
	o         Options
	iso       *isolate.Isolator
	scheduler string
	cpus      hardware.Set
	report    *Report
}

func (r *run) all(ctx context.Context) error {
	for _, class := range r.o.Classes {
		for _, loaded := range []bool{false, true} {
			if loaded && len(r.o.Loads) == 0 {
				continue
			}
			s := Series{Class: class, Scheduler: r.scheduler, Loaded: loaded}
			if r.o.Progress != nil {
				r.o.Progress(fmt.Sprintf("measuring %s for %v", s.Name(), r.o.Duration))
			}
			if err := r.measure(ctx, &s); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				s.Problem = err.Error()
			}
			r.report.Series = append(r.report.Series, s)
		}
	}
	return nil
}

// Name is how a series is called in tables and legends.
func (s *Series) Name() string {
	name := s.Class
	if s.Scheduler != Stock {
		name += " under " + s.Scheduler
	}
	if s.Loaded {
		return name + ", loaded"
	}
	return name + ", alone"
}

func (r *run) measure(ctx context.Context, s *Series) (err error) {
	if s.Loaded {
		load, err := r.startLoad(ctx, s.Class)
		if err != nil {
			return fmt.Errorf("load: %w", err)
		}
		defer func() {
			s.Load = &latency.LoadReport{}
			err = errors.Join(err, load.End(s.Load), r.release("load"))
		}()
	}
	spec := isolate.Spec{ID: "worker", Class: isolate.Class(s.Class)}
	if s.Class == string(isolate.Realtime) {
		ids := r.cpus.IDs()
		spec.CPUs = hardware.NewSet(ids[len(ids)-1])
		s.CPUs = spec.CPUs.String()
	}
	p, err := r.start(ctx, spec, latency.Child{Worker: &latency.Worker{Period: r.o.Period, Duration: r.o.Duration}})
	if err != nil {
		return errors.Join(err, r.release("worker"))
	}
	err = errors.Join(p.Wait(&s.worker), r.release("worker"))
	if err == nil {
		s.Histogram, s.Policy, s.Locked = &s.worker.Histogram, s.worker.Policy.Policy.String(), s.worker.Locked
	}
	return err
}

// startLoad starts batch work; beside the default class it is default too.
func (r *run) startLoad(ctx context.Context, class string) (*latency.Process, error) {
	spec := isolate.Spec{ID: "load", Class: isolate.Batch}
	if class == Default {
		spec.Class = Default
	}
	p, err := r.start(ctx, spec, latency.Child{Load: &latency.Load{Kinds: r.o.Loads, Threads: r.o.Threads}})
	if err == nil {
		time.Sleep(100 * time.Millisecond) // until its threads run
	}
	return p, err
}

// start starts a child under what a class means here.
func (r *run) start(ctx context.Context, spec isolate.Spec, task latency.Child) (*latency.Process, error) {
	isolated := spec.Class != Default
	if isolated {
		if err := r.iso.Prepare(spec); err != nil {
			return nil, err
		}
	}
	p, err := latency.Start(ctx, r.o.Command, r.iso.Cgroup(spec.ID), task)
	if err != nil {
		return nil, err
	}
	if isolated {
		err = r.iso.Apply(spec.ID, p.PID)
		r.note(spec)
	}
	if err == nil {
		err = p.Begin()
	}
	if err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

// note keeps the promises that this machine did not hold, each once.
func (r *run) note(spec isolate.Spec) {
	st, err := r.iso.Status(spec.ID)
	if err != nil {
		return
	}
	for _, p := range st.Promises {
		g := isolate.Gap{Guarantee: string(spec.Class) + ": " + p.What, Reason: p.Detail}
		unset := p.What == "memory never reclaimed" || strings.HasPrefix(p.What, "SCHED_") // no limit was given; told by Policy
		if !p.Held && !unset && !slices.Contains(r.report.Gaps, g) {
			r.report.Gaps = append(r.report.Gaps, g)
		}
	}
}

func (r *run) release(id string) error { return r.iso.Release(id) }
