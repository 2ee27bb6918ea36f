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
	"oscine.dev/oscine/internal/object"
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

// Run measures every class, first alone, then beside the load. What it sets is
// gone when it returns, also when ctx has ended; else the error is ErrLeft. The
// report is nil where the options are wrong or nothing could begin.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
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
		if err := errors.Join(r.under(ctx, s), r.left); err != nil {
			return r.report, err
		}
	}
	return r.report, nil
}

// under measures all classes under one back end.
func (r *run) under(ctx context.Context, scheduler string) (err error) {
	r.scheduler, r.iso = scheduler, nil
	if h := r.o.Host; h != nil {
		r.iso = h.Isolator
	} else {
		slice := fmt.Sprintf("oscine-bench-%d.slice", os.Getpid())
		if r.iso, err = isolate.Open(isolate.Options{Slice: slice, SchedExt: scheduler == SchedExt}); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, r.iso.Remove(), r.iso.Close()) }()
	}
	for _, g := range r.iso.Gaps() {
		if !slices.Contains(r.report.Gaps, g) {
			r.report.Gaps = append(r.report.Gaps, g)
		}
	}
	if scheduler == SchedExt && !r.iso.SchedExt() {
		return nil // one that could not be started is listed in the gaps and not measured
	}
	return r.all(ctx)
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
	left      error // ErrLeft: what could not be taken back
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
			r.release(loadID)
			return fmt.Errorf("load: %w", err)
		}
		defer func() {
			s.Load = &latency.LoadReport{}
			err = errors.Join(err, load.End(s.Load))
			r.release(loadID)
		}()
	}
	spec := isolate.Spec{ID: workerID, Class: object.Class(s.Class)}
	if s.Class == string(isolate.Realtime) {
		back, err := r.ownCPU(&spec)
		if err != nil {
			return err
		}
		defer back()
		s.CPUs = spec.CPUs.String()
	}
	p, err := r.start(ctx, spec, latency.Child{Worker: &latency.Worker{Period: r.o.Period, Duration: r.o.Duration}})
	if err == nil {
		err = p.Wait(&s.worker)
	}
	r.release(workerID)
	if err == nil {
		s.Histogram, s.Policy, s.Locked = &s.worker.Histogram, s.worker.Policy.Policy.String(), s.worker.Locked
	}
	return err
}

// startLoad starts batch work; beside the default class it is default too.
func (r *run) startLoad(ctx context.Context, class string) (*latency.Process, error) {
	spec := isolate.Spec{ID: loadID, Class: isolate.Batch}
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
	p, err := latency.Start(ctx, r.o.Command, r.cgroup(spec.ID, isolated), task)
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
