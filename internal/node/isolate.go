package node

import (
	"oscine.dev/oscine/internal/bench/classes"
	"oscine.dev/oscine/internal/isolate"
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

// reserveHugePages sets aside what the Machine file asks for. A shortage is reported, and placement gives out
// what there is.
func (n *Node) reserveHugePages() {
	for size, bytes := range n.machine.Spec.HugePages {
		page, _ := size.Value()
		amount, _ := bytes.Value() // both checked when the file was read
		if err := isolate.ReserveHugePages(sysRoot, page, amount); err != nil {
			n.hugePagesMissing(size, err)
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
