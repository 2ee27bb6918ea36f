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
	i.ext.Store(s)
	return nil
}

func (i *Isolator) stopSchedExt() error {
	s := i.ext.Swap(nil)
	if s == nil {
		return nil
	}
	return s.Close()
}

// verifySchedExt reports, once, that the kernel's watchdog took the scheduler
// out.
func (i *Isolator) verifySchedExt() []Event {
	if s := i.ext.Load(); s == nil || s.Running() {
		return nil
	}
	if err := i.stopSchedExt(); err != nil {
		i.log.Debug("isolation", "error", err)
	}
	i.gaps = append(i.gaps, Gap{"the sched_ext scheduler", "the kernel took it out; the stock scheduler does its work"})
	return []Event{{Reason: ReasonBroken, Message: "the kernel took the sched_ext scheduler out; the stock scheduler does its work, all other settings hold"}}
}
