package main

import (
	"errors"
	"fmt"

	"oscine.dev/oscine/internal/bench/isolation/figure"
	"oscine.dev/oscine/internal/bench/latency"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/isolate"
	"oscine.dev/oscine/internal/isolate/schedext"
	"oscine.dev/oscine/internal/isolate/urgency"
	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/object"
)

// classCase is one class of the product.
type classCase struct {
	name     string
	class    object.Class
	unloaded bool
	policy   linux.Scheduling // which the worker gives itself
	deadline *isolate.Reservation
	loads    []string // nil: computing
}

func classes(cpus int) []classCase {
	serving := urgency.For(work)
	all := []classCase{
		{name: figure.Interactive + ", unloaded", class: isolate.Interactive, unloaded: true},
		{name: figure.Interactive, class: isolate.Interactive},
		{name: figure.Serving + ", unloaded", class: isolate.Interactive, policy: serving, unloaded: true},
		{name: figure.Serving, class: isolate.Interactive, policy: serving},
	}
	if cpus == 1 {
		return all // a real-time workload needs a CPU besides the system's
	}
	reserved := &isolate.Reservation{Runtime: 2_000_000, Deadline: 5_000_000, Period: 5_000_000}
	return append(all,
		classCase{name: figure.Realtime + ", unloaded", class: isolate.Realtime, unloaded: true},
		classCase{name: figure.Realtime, class: isolate.Realtime},
		classCase{name: figure.Realtime + " DEADLINE", class: isolate.Realtime, deadline: reserved},
	)
}

const cgroupRoot = "/sys/fs/cgroup"

func (b *bench) class(c classCase) (err error) {
	spec := isolate.Spec{ID: "worker", Class: c.class, Deadline: c.deadline}
	if c.class == isolate.Realtime {
		spec.CPUs = hardware.NewSet(b.cpus - 1)
	}
	if err := b.iso.Prepare(spec); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.iso.Release("worker")) }()
	dir := cgroupRoot + isolate.CgroupPath(c.class, "worker")
	apply := func(pid int) error { return b.iso.Apply("worker", pid) }
	cpu := max(spec.CPUs.First(), 0)
	w := on(cpu, latency.Worker{Policy: c.policy})
	if c.unloaded {
		return b.alone(cpu, func() error { return b.worker(c.name, dir, w, nil, apply) })
	}
	load, err := b.batch(c.loads)
	if err != nil {
		return err
	}
	defer func() {
		load.Kill()
		err = errors.Join(err, b.iso.Release("load"))
	}()
	return b.worker(c.name, dir, w, load, apply)
}

// stall measures a real-time worker, or on one CPU a thread of the serving
// path, beside batch work that keeps memory management busy.
func (b *bench) stall() (err error) {
	if b.iso, err = isolate.Open(isolate.Options{Own: true}); err != nil {
		return err
	}
	c := classCase{name: figure.Realtime, class: isolate.Realtime}
	if b.cpus == 1 {
		c = classCase{name: figure.Serving, class: isolate.Interactive, policy: urgency.For(work)}
	}
	c.name += figure.Stall
	c.loads = []string{"memory", "thp", "file"}
	return b.class(c)
}

// batch starts the load as a workload of the batch class.
func (b *bench) batch(kinds []string) (*latency.Process, error) {
	if err := b.iso.Prepare(isolate.Spec{ID: "load", Class: isolate.Batch}); err != nil {
		return nil, err
	}
	dir := cgroupRoot + isolate.CgroupPath(isolate.Batch, "load")
	return b.start(dir, latency.Child{Load: &latency.Load{Kinds: kinds}}, func(pid int) error { return b.iso.Apply("load", pid) })
}

func (b *bench) urgentRequests() error {
	if err := b.iso.Prepare(isolate.Spec{ID: "server", Class: isolate.Interactive}); err != nil {
		return err
	}
	load, err := b.batch(nil)
	if err != nil {
		return err
	}
	defer load.Kill()
	r := b.traffic()
	r.Urgent = true
	dir := cgroupRoot + isolate.CgroupPath(isolate.Interactive, "server")
	if err := b.serve(figure.Serving, dir, r, load, func(pid int) error { return b.iso.Apply("server", pid) }); err != nil {
		return fmt.Errorf("requests by deadline: %w", err)
	}
	return errors.Join(b.iso.Release("server"), b.iso.Release("load"))
}

// schedExt measures the interactive class under the second back end, and the
// serving path that tells it of deadlines.
func (b *bench) schedExt() (err error) {
	if err := b.iso.Close(); err != nil {
		return err
	}
	if b.iso, err = isolate.Open(isolate.Options{Own: true, SchedExt: true}); err != nil {
		return err
	}
	if state, err := schedext.State(); err != nil || state != "enabled" {
		fmt.Println("sched_ext:", state, err, b.iso.Gaps())
		return nil // this kernel has none
	}
	for _, unloaded := range []bool{true, false} {
		c := classCase{name: figure.SchedExt, class: isolate.Interactive, unloaded: unloaded}
		if unloaded {
			c.name += ", unloaded"
		}
		if err := b.class(c); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	if err := b.served(figure.ServedExt, true); err != nil {
		return fmt.Errorf("%s: %w", figure.ServedExt, err)
	}
	if state, err := schedext.State(); err != nil || state != "enabled" {
		return fmt.Errorf("the kernel took the sched_ext scheduler out: %s %w", state, err)
	}
	return b.iso.Close()
}
