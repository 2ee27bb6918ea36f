package place

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sort"
)

// Preemption is a way to make room: what to stop, and where the request would
// then go.
type Preemption struct {
	Victims   []string
	Placement Placement
}

// Preempt finds the smallest loss that makes room for a request that does not
// fit: only placements of a looser class, or of the same class with a lower
// priority, are stopped, the least valuable first, and as few as will do; none
// of which keep is true (nil keeps none).
// Nothing is changed. Where even stopping all of them does not help, the error
// is the *Unsatisfied that would remain; where ctx ends, its error.
func (s *State) Preempt(ctx context.Context, req Request, keep func(placed *Request) bool) (*Preemption, error) {
	if p, err := s.Try(ctx, req); err == nil {
		return &Preemption{Placement: p}, nil
	}
	var lower []*Placement
	for _, name := range slices.Sorted(maps.Keys(s.placed)) {
		if p := s.placed[name]; yields(&p.Request, &req) && (keep == nil || !keep(&p.Request)) {
			lower = append(lower, p)
		}
	}
	trial := s.Clone()
	for _, p := range lower {
		trial.Release(p.Request.Name)
	}
	if _, err := trial.choose(ctx, &req); err != nil {
		return nil, err
	}
	// Spare them again from the most valuable down, as long as the request
	// still fits beside them.
	sortBy(lower, func(a, b *Placement) bool { return moreValuable(a, b) })
	var victims []string
	e := newEffort(ctx, maxPlanEffort)
	for _, p := range lower {
		spared := *p
		trial.commit(&spared) // it held this before, so it is free
		if !trial.feasible(e, &req) {
			trial.Release(p.Request.Name)
			victims = append(victims, p.Request.Name)
		}
	}
	slices.Sort(victims)
	placement, err := trial.choose(ctx, &req)
	if err != nil {
		return nil, err
	}
	return &Preemption{Victims: victims, Placement: *placement}, nil
}

// feasible reports whether choose would succeed, without choosing or wording.
// The selectors of the request are evaluated already.
func (s *State) feasible(e *effort, req *Request) bool {
	o := s.offerFor(req)
	if o.short() || (!req.Exclusive && len(s.pool(req, nil)) == 0) {
		return false
	}
	sets := []deviceSet{{}}
	if len(req.Devices) > 0 {
		match, failures := s.matchDevices(req)
		if len(failures) > 0 {
			return false
		}
		sets = s.deviceSets(e, req, match)
	}
	return slices.ContainsFunc(sets, func(set deviceSet) bool { return len(s.nodeSets(e, o.need(set), 1)) > 0 })
}

// yields reports whether a placement gives way to a request.
func yields(placed, req *Request) bool {
	return placed.Class < req.Class || (placed.Class == req.Class && placed.Priority < req.Priority)
}

// moreValuable orders by class, priority, then size: of equals it is better to
// stop one small than one large.
func moreValuable(a, b *Placement) bool {
	x, y := &a.Request, &b.Request
	return cmp.Or(
		cmp.Compare(y.Class, x.Class), cmp.Compare(y.Priority, x.Priority),
		cmp.Compare(countDevices(y), countDevices(x)), cmp.Compare(y.MilliCPU, x.MilliCPU),
		cmp.Compare(y.Memory, x.Memory), cmp.Compare(x.Name, y.Name),
	) < 0
}

func sortBy[T any](list []T, less func(a, b T) bool) {
	sort.SliceStable(list, func(i, j int) bool { return less(list[i], list[j]) })
}
