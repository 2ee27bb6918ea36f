package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"oscine.dev/oscine/internal/bench/isolation/figure"
	"oscine.dev/oscine/internal/bench/latency"
	"oscine.dev/oscine/internal/isolate"
	"oscine.dev/oscine/internal/linux"
)

// work is what the worker computes after each wake-up, as an inference does:
// a fifth of a CPU in all.
const work = time.Millisecond

// bench measures one guest.
type bench struct {
	ctx      context.Context
	duration time.Duration
	cpus     int
	iso      *isolate.Isolator
}

var self = []string{"/init", "child"}

// configuration is one thing that stock Linux offers.
type configuration struct {
	name         string
	worker, load string // cgroups; "" is the root
	policy       linux.Scheduling
	unloaded     bool
}

func stock() []configuration {
	deadline := linux.Scheduling{Policy: linux.PolicyDeadline, ResetOnFork: true,
		Runtime: 2 * time.Millisecond, Deadline: 5 * time.Millisecond, Period: 5 * time.Millisecond}
	return []configuration{
		{name: figure.Unloaded, unloaded: true},
		{name: figure.Default},
		{name: "nice −20", policy: linux.Scheduling{Nice: -20}},
		{name: "cgroup weight 10000 : 1", worker: "heavy", load: "light"},
		{name: figure.Idle, worker: "plain", load: "idle"},
		{name: "SCHED_FIFO", policy: linux.Scheduling{Policy: linux.PolicyFIFO, Priority: 50}},
		{name: "SCHED_DEADLINE 2/5/5 ms", policy: deadline},
	}
}

// groups are the cgroups of the stock configurations, with what is set there.
var groups = map[string][2]string{
	"heavy": {"cpu.weight", "10000"}, "light": {"cpu.weight", "1"}, "plain": {"cpu.weight", "100"}, "idle": {"cpu.idle", "1"},
}

func makeGroup(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	dir := filepath.Join("/sys/fs/cgroup", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	set := groups[name]
	return dir, os.WriteFile(filepath.Join(dir, set[0]), []byte(set[1]), 0o644)
}

func (b *bench) latency(c configuration) error {
	workerDir, err := makeGroup(c.worker)
	if err != nil {
		return err
	}
	loadDir, err := makeGroup(c.load)
	if err != nil {
		return err
	}
	w := latency.Worker{Policy: c.policy}
	if c.unloaded {
		return b.alone(0, func() error { return b.worker(c.name, workerDir, on(0, w), nil, nil) })
	}
	load, err := b.start(loadDir, latency.Child{Load: &latency.Load{}}, nil)
	if err != nil {
		return err
	}
	defer load.Kill()
	return b.worker(c.name, workerDir, on(0, w), load, nil)
}

// alone measures without load. Where there are several CPUs the others compute
// all the same, apart from the worker: they share the virtual clock, and the
// worker's steps would otherwise take half the time that they take under load.
func (b *bench) alone(cpu int, measure func() error) error {
	for other := range b.cpus {
		if other == cpu {
			continue
		}
		neighbour, err := b.start("", latency.Child{Load: &latency.Load{Threads: 1, CPU: 1 + other}}, nil)
		if err != nil {
			return err
		}
		defer neighbour.Kill()
	}
	return measure()
}

// on keeps a worker on one CPU, the same loaded as unloaded: the emulator
// gives the first CPU its turn sooner than the second, by more than what is
// measured here.
func on(cpu int, w latency.Worker) latency.Worker {
	if w.Policy.Policy != linux.PolicyDeadline { // which must be free to use all of its root domain
		w.CPU = 1 + cpu
	}
	return w
}

// start starts a child, calls apply with its process, and lets it begin.
func (b *bench) start(dir string, task latency.Child, apply func(pid int) error) (*latency.Process, error) {
	p, err := latency.Start(b.ctx, self, dir, task)
	if err != nil {
		return nil, err
	}
	if apply != nil {
		err = apply(p.PID)
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

// worker measures beside a load, or none.
func (b *bench) worker(name, dir string, w latency.Worker, load *latency.Process, apply func(pid int) error) error {
	time.Sleep(200 * time.Millisecond)
	w.Duration, w.Work = b.duration, work
	p, err := b.start(dir, latency.Child{Worker: &w}, apply)
	if err != nil {
		return err
	}
	f := figure.Figure{Name: name, CPUs: b.cpus, Worker: &latency.WorkerReport{}}
	if err := p.Wait(f.Worker); err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	if load != nil {
		f.Load = &latency.LoadReport{}
		if err := load.End(f.Load); err != nil {
			return fmt.Errorf("load: %w", err)
		}
	}
	return print(f)
}

// requestCase is one way to schedule the threads of a server.
type requestCase struct {
	name   string
	policy linux.Scheduling
}

func stockRequests() []requestCase {
	return []requestCase{
		{name: figure.Idle},
		{name: "SCHED_FIFO", policy: linux.Scheduling{Policy: linux.PolicyFIFO, Priority: 1}},
	}
}

// traffic is requests that use half of the processors: a few that must
// be answered within three times their work, beside long ones in no hurry.
func (b *bench) traffic() latency.Requests {
	n := float64(b.cpus)
	return latency.Requests{
		Duration: b.duration, Threads: 32 * b.cpus, Seed: 1,
		Kinds: []latency.RequestKind{
			{Name: "tight", Rate: 60 * n, Service: time.Millisecond, Deadline: 3 * time.Millisecond},
			{Name: "loose", Rate: 50 * n, Service: 10 * time.Millisecond, Deadline: 200 * time.Millisecond},
		},
	}
}

func (b *bench) requests(c requestCase) error {
	worker, err := makeGroup("plain")
	if err != nil {
		return err
	}
	idle, err := makeGroup("idle")
	if err != nil {
		return err
	}
	load, err := b.start(idle, latency.Child{Load: &latency.Load{}}, nil)
	if err != nil {
		return err
	}
	defer load.Kill()
	r := b.traffic()
	r.Policy = c.policy
	return b.serve(c.name, worker, r, load, nil)
}

func (b *bench) serve(name, dir string, r latency.Requests, load *latency.Process, apply func(pid int) error) error {
	p, err := b.start(dir, latency.Child{Requests: &r}, apply)
	if err != nil {
		return err
	}
	f := figure.Figure{Name: name, CPUs: b.cpus, Requests: &latency.RequestReport{}, Load: &latency.LoadReport{}}
	if err := p.Wait(f.Requests); err != nil {
		return fmt.Errorf("requests: %w", err)
	}
	if err := load.End(f.Load); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	return print(f)
}
