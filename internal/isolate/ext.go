package isolate

import (
	"cmp"
	"slices"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/isolate/schedext"
	"oscine.dev/oscine/internal/object"
)

// startSchedExt starts the second back end in place of one that an earlier
// process left.
func (i *Isolator) startSchedExt() []Gap {
	const guarantee = "the sched_ext scheduler"
	if i.host.cgroups == "" {
		return []Gap{{guarantee, "it knows the classes by cgroups of version 2"}}
	}
	pin := "" // of a slice for a while it goes with its process
	if i.o.Slice == defaultSlice {
		pin = i.host.file("sys/fs/bpf/oscine/scheduler")
		if err := schedext.Release(pin); err != nil {
			return []Gap{{guarantee, err.Error()}}
		}
	}
	class := func(c object.Class) string { return i.cg.path(i.o.Slice, string(c)) }
	machine, err := hardware.Discover(i.o.Root)
	if err != nil {
		return []Gap{{guarantee, err.Error()}}
	}
	s, err := schedext.Start(schedext.Options{
		Domains: domains(machine), System: class(System), Interactive: class(Interactive), Batch: class(Batch), Pin: pin,
	})
	if err != nil {
		return []Gap{{guarantee, "the stock scheduler does its work: " + err.Error()}}
	}
	i.ext.Store(s)
	return nil
}

// domains lists the CPUs that share each last-level cache, those of a NUMA node
// beside each other.
func domains(m *hardware.Machine) [][]int {
	var last []hardware.Set
	for _, c := range m.Caches {
		shadowed := slices.ContainsFunc(m.Caches, func(o hardware.Cache) bool {
			return o.Node == nil && o.Level > c.Level && o.CPUs.Meets(c.CPUs)
		})
		if c.Node == nil && !shadowed && !slices.ContainsFunc(last, c.CPUs.Equal) { // data and instructions may be apart
			last = append(last, c.CPUs)
		}
	}
	node := func(s hardware.Set) int {
		return slices.IndexFunc(m.Nodes, func(n hardware.Node) bool { return n.Own.Meets(s) })
	}
	slices.SortStableFunc(last, func(a, b hardware.Set) int {
		return cmp.Or(cmp.Compare(node(a), node(b)), cmp.Compare(a.First(), b.First()))
	})
	var out [][]int
	for _, s := range last {
		out = append(out, s.IDs())
	}
	return out
}

// SchedExt reports whether the sched_ext scheduler runs for this isolator.
func (i *Isolator) SchedExt() bool {
	s := i.ext.Load()
	return s != nil && s.Running()
}

func (i *Isolator) stopSchedExt() error {
	s := i.ext.Swap(nil)
	if s == nil {
		return nil
	}
	return s.Close()
}

// verifySchedExt reports, once, that the kernel took the scheduler out, and why.
func (i *Isolator) verifySchedExt() []Event {
	s := i.ext.Load()
	if s == nil || s.Running() {
		return nil
	}
	why := "the kernel took it out"
	if verdict := s.Verdict(); verdict != "" {
		why += " (" + verdict + ")"
	}
	why += "; the stock scheduler does its work"
	if err := i.stopSchedExt(); err != nil {
		i.log.Debug("isolation", "error", err)
	}
	i.gaps = append(i.gaps, Gap{"the sched_ext scheduler", why})
	return []Event{{Reason: ReasonBroken, Message: "the sched_ext scheduler: " + why + ", all other settings hold"}}
}
