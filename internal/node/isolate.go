package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"oscine.dev/oscine/internal/bench/classes"
	"oscine.dev/oscine/internal/container"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/isolate"
	"oscine.dev/oscine/internal/node/allocate"
	"oscine.dev/oscine/internal/object"
)

// openIsolation makes the classes' slices and watches over them.
func (n *Node) openIsolation() error {
	isolator, err := isolate.Open(isolate.Options{Own: n.config.Mode == OnImage, Data: n.config.StateDir, Slices: classLimits(n.machine.Spec.Classes), SchedExt: n.machine.Spec.Classes.Scheduler == "sched_ext", Logger: n.log, OnEvent: n.notePromise})
	if err != nil {
		return err
	}
	n.isolator = isolator
	if err := classes.Discard(isolator); err != nil {
		n.log.Warn("remove what an earlier daemon measured by", "error", err)
	}
	n.wg.Go(func() { isolator.Watch(n.life) })
	return nil
}

// reserveHugePages sets aside what the Machine file asks for. What cannot be
// had is told, and placement gives out what there is.
func (n *Node) reserveHugePages() {
	for size, bytes := range n.machine.Spec.HugePages {
		page, _ := size.Value()
		amount, _ := bytes.Value() // both checked when the file was read
		if err := isolate.ReserveHugePages(sysRoot, page, amount); err != nil {
			n.log.Error("huge pages of the Machine file", "size", size, "error", err)
			n.events.add(Event{Warning: true, Reason: isolate.ReasonBroken, Message: fmt.Sprintf("spec.hugePages of the Machine file: %v", err)})
		}
	}
}

// classLimits are the limits of the Machine file.
func classLimits(m object.MachineClasses) isolate.Slices {
	limits := func(l object.ClassLimits) isolate.SliceLimits {
		bytes := func(q object.Quantity) int64 {
			n, _ := q.Value() // checked when the file was read
			return n
		}
		return isolate.SliceLimits{CPUWeight: l.CPUWeight, IOWeight: l.IOWeight, PIDs: l.PIDs,
			MemoryMin: bytes(l.MemoryMin), MemoryLow: bytes(l.MemoryLow), MemoryHigh: bytes(l.MemoryHigh)}
	}
	return isolate.Slices{System: limits(m.System), Realtime: limits(m.Realtime), Interactive: limits(m.Interactive), Batch: limits(m.Batch)}
}

// isolationGaps lists the guarantees that this host cannot give, and why.
func (n *Node) isolationGaps() []string {
	var lines []string
	for _, g := range n.isolator.Gaps() {
		lines = append(lines, g.String())
	}
	return lines
}

// promise is what the kernel is told of a placed object before it starts.
func promise(p *allocate.Placement, key object.Key, class object.Class, r *object.Resources) isolate.Spec {
	s := isolate.Spec{
		ID: key.ID(), Class: isolate.Class(class),
		CPUs: hardware.NewSet(p.CPUs...), MemoryNodes: hardware.NewSet(p.NUMANodes...), Exclusive: p.Request.Exclusive,
		MilliCPU: p.Request.MilliCPU, Memory: p.Request.Memory, Objective: r.Latency.Std(),
		Idle: hardware.NewSet(p.Held...), Deadline: reservation(r.Deadline),
	}
	if key.Kind == object.KindModel {
		s.MemoryLow = p.Request.Memory // its weights are what reclaim must not take
	}
	for _, h := range p.Request.HugePages {
		s.HugePages = append(s.HugePages, isolate.HugePages{Size: h.Size, Bytes: h.Bytes})
	}
	return s
}

func reservation(r *object.Reservation) *isolate.Reservation {
	if r == nil {
		return nil
	}
	return &isolate.Reservation{Runtime: r.Runtime.Std(), Deadline: r.Deadline.Std(), Period: r.Period.Std()}
}

// admit refuses a reservation that this machine cannot hold, before anybody
// makes room for it.
func (n *Node) admit(r *object.Resources) error {
	if r.Deadline == nil {
		return nil
	}
	if err := n.isolator.Admit(*reservation(r.Deadline)); err != nil {
		return fmt.Errorf("%w: shorten spec.resources.deadline.runtime or lengthen its period and deadline", err)
	}
	return nil
}

// refused tells a refusal that stands until the manifest or the machine
// changes from a failure that may pass.
func refused(err error) bool {
	return allocate.Unsatisfied(err) || errors.Is(err, isolate.ErrOverCommitted) || errors.Is(err, isolate.ErrNoHousekeeping)
}

// shareCPUs tells the kernel where those that share CPUs run now that others
// have taken or given back theirs.
func (n *Node) shareCPUs() {
	n.placer.EachShared(func(id string, cpus []int) {
		err := n.isolator.SetCPUs(id, hardware.NewSet(cpus...))
		if err != nil && !errors.Is(err, isolate.ErrUnknown) { // unknown: it has not started yet
			n.log.Warn("isolation", "id", id, "error", err)
		}
	})
}

// startIsolated tells the kernel of a container's promises, starts it, and
// sets what needs its process before that runs its program. One that runs
// already keeps what it has.
func (n *Node) startIsolated(ctx context.Context, promise isolate.Spec, spec container.Spec) error {
	if err := n.isolator.Prepare(promise); err != nil {
		return err
	}
	n.shareCPUs() // others may have come or gone since it was placed
	created := spec.Created
	spec.Created = func(ctx context.Context, pid int) error {
		if created != nil {
			if err := created(ctx, pid); err != nil {
				return err
			}
		}
		return n.isolator.Apply(promise.ID, pid)
	}
	if err := n.runtime.Start(ctx, spec); err != nil {
		return err
	}
	now, err := n.runtime.Status(ctx, promise.ID)
	if err != nil || now.PID == 0 {
		return err
	}
	return n.isolator.Adopt(promise.ID, now.PID)
}

// isolation is what an object was promised and what it gets, nil before it
// starts.
func (n *Node) isolation(key object.Key) *object.IsolationStatus {
	st, err := n.isolator.Status(key.ID())
	if errors.Is(err, isolate.ErrUnknown) {
		return nil
	}
	return &st
}

// prepareShares divides the devices of an object's placement. What runs of it on
// parts that it has no more gets that long to end.
func (n *Node) prepareShares(ctx context.Context, key object.Key, p *allocate.Placement, grace time.Duration) error {
	return n.shares.Prepare(ctx, key.ID(), p, func() error {
		err := n.runtime.Stop(ctx, key.ID(), grace)
		if errors.Is(err, container.ErrNotFound) {
			return nil
		}
		return err
	})
}
