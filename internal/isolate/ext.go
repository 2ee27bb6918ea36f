package isolate

import "oscine.dev/oscine/internal/isolate/schedext"

// startSchedExt starts the second back end in place of one that an earlier
// process left.
func (i *Isolator) startSchedExt() []Gap {
	const guarantee = "the sched_ext scheduler"
	if i.host.cgroups == "" {
		return []Gap{{guarantee, "it knows the classes by cgroups of version 2"}}
	}
	pin := i.host.file("sys/fs/bpf/oscine/scheduler")
	if err := schedext.Release(pin); err != nil {
		return []Gap{{guarantee, err.Error()}}
	}
	class := func(c Class) string { return i.cg.path(i.o.Slice, string(c)) }
	s, err := schedext.Start(schedext.Options{
		System: class(System), Interactive: class(Interactive), Batch: class(Batch), Pin: pin,
	})
	if err != nil {
		return []Gap{{guarantee, "the stock scheduler does its work: " + err.Error()}}
	}
	i.ext = s
	return nil
}

func (i *Isolator) stopSchedExt() error {
	if i.ext == nil {
		return nil
	}
	s := i.ext
	i.ext = nil
	return s.Close()
}

// verifySchedExt reports, once, that the kernel's watchdog took the scheduler
// out.
func (i *Isolator) verifySchedExt() []Event {
	if i.ext == nil || i.ext.Running() {
		return nil
	}
	if err := i.stopSchedExt(); err != nil {
		i.log.Debug("isolation", "error", err)
	}
	i.gaps = append(i.gaps, Gap{"the sched_ext scheduler", "the kernel took it out; the stock scheduler does its work"})
	return []Event{{Reason: ReasonBroken, Message: "the kernel took the sched_ext scheduler out; the stock scheduler does its work, all other settings hold"}}
}

// SetDeadline tells the sched_ext scheduler by when a thread has to be done, in
// nanoseconds of CLOCK_MONOTONIC; 0 for its class's usual. Under the stock
// scheduler it does nothing: see package urgency.
func (i *Isolator) SetDeadline(tid int, deadline int64) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ext == nil {
		return nil
	}
	return i.ext.SetDeadline(tid, deadline)
}
