package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"oscine.dev/oscine/internal/bench/classes"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/isolate"
	"oscine.dev/oscine/internal/place"
)

// longestBench bounds what one caller may ask of the machine.
const longestBench = 30 * time.Minute

// BenchLatency measures how late threads of each class wake on this machine,
// beside what runs on it, until ctx ends. It undoes all that it sets. There is one at a time; it returns
// ErrConflict while another runs, and ErrInvalid for what can never be measured.
func (n *Node) BenchLatency(ctx context.Context, o classes.Options) (*classes.Report, error) {
	o.Command = n.config.BenchCommand
	o.Host = &classes.Host{Isolator: n.isolator, Lend: n.lendCPU}
	if n.config.Mode == OnImage {
		o.Host.Default = cgroupRoot
	}
	if err := o.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if total := o.Total(); total > longestBench {
		return nil, fmt.Errorf("%w: measuring %v takes longer than %v: ask for fewer classes or a shorter duration", ErrInvalid, total, longestBench)
	}
	own := classes.Stock
	if n.isolator.SchedExt() {
		own = classes.SchedExt
	}
	for _, s := range o.Schedulers {
		if s != own {
			return nil, fmt.Errorf("%w: this node's scheduler is %s, not %s: spec.classes.scheduler of its Machine file chooses", ErrConflict, own, s)
		}
	}
	if !n.benching.TryLock() {
		return nil, fmt.Errorf("%w: someone measures this machine already: try again when that has ended", ErrConflict)
	}
	defer n.benching.Unlock()
	ctx, cancel := context.WithTimeout(ctx, o.Total()+time.Minute)
	defer cancel()
	defer context.AfterFunc(n.life, cancel)()
	report, err := classes.Run(ctx, o)
	if errors.Is(err, classes.ErrLeft) {
		n.log.Warn("measure wake-ups", "error", err)
	}
	return report, err
}

// cgroupRoot holds work of no class.
const cgroupRoot = "/sys/fs/cgroup"

// lendCPU places a real-time worker as if it were a workload, so that no other gets its CPU meanwhile and
// those that share it leave.
func (n *Node) lendCPU(spec *isolate.Spec) (back func(), err error) {
	given, err := n.placer.Lend(n.life, place.Request{Name: spec.ID, Class: place.Realtime, MilliCPU: 1000, Exclusive: true, WholeCore: true})
	if err != nil {
		return nil, err
	}
	n.box.UpdateCPUs()
	spec.CPUs, spec.Idle = hardware.NewSet(given.CPUs...), hardware.NewSet(given.Held...)
	return func() {
		n.placer.Release(spec.ID)
		n.box.UpdateCPUs()
		n.loop.Wake(nil) // there may be room for others now
	}, nil
}
