package place

import (
	"cmp"
	"context"
	"slices"
)

// Place chooses the part of the machine for a request and gives it out. A
// refusal is an *Unsatisfied and changes nothing; so does a ctx that ends
// before the choice is made, whose error is returned. Without that a choice
// takes less than a second.
func (s *State) Place(ctx context.Context, req Request) (Placement, error) {
	p, err := s.choose(ctx, &req)
	if err != nil {
		return Placement{}, err
	}
	s.commit(p)
	return *p, nil
}

// Try is Place without giving anything out.
func (s *State) Try(ctx context.Context, req Request) (Placement, error) {
	p, err := s.choose(ctx, &req)
	if err != nil {
		return Placement{}, err
	}
	return *p, nil
}

// candidate is one complete choice.
type candidate struct {
	devices deviceSet
	nodes   nodeSet
	cpus    []*CPU
}

// compare orders candidates: fewest NUMA nodes, fewest instances of the same work
// and nearest first, then the links of the devices, then what is taken from others.
func (a *candidate) compare(b *candidate) int {
	x, y := a.nodes.cost, b.nodes.cost
	return cmp.Or(
		cmp.Compare(x.count, y.count),
		cmp.Compare(x.crowd, y.crowd),
		cmp.Compare(x.distance, y.distance),
		compareSets(deviceSet{crowd: a.devices.crowd, score: a.devices.score, loss: a.devices.loss}, deviceSet{crowd: b.devices.crowd, score: b.devices.score, loss: b.devices.loss}),
		cmp.Compare(x.spared, y.spared),
		cmp.Compare(x.waste, y.waste),
		slices.Compare(a.devices.all(), b.devices.all()),
	)
}

func (s *State) choose(ctx context.Context, req *Request) (*Placement, error) {
	return s.decide(newEffort(ctx, maxEffort), req)
}

// decide tries the CPUs that suit a request best before all that will do.
func (s *State) decide(e *effort, req *Request) (*Placement, error) {
	if len(req.check()) == 0 {
		for _, narrow := range s.preferences(req) {
			p, err := s.decideOn(e, &narrow.req, narrow.only)
			if err != nil {
				continue
			}
			if narrow.only == isolatedCPUs && len(p.NUMANodes) > 1 { // not at the price of nearness
				if near, err := s.decideOn(e, &narrow.req, anyCPUs); err == nil && len(near.NUMANodes) < len(p.NUMANodes) {
					p = near
				}
			}
			p.Request = *req
			return p, nil
		}
	}
	return s.decideOn(e, req, anyCPUs)
}

func (s *State) decideOn(e *effort, req *Request, only cpuSort) (*Placement, error) {
	refuse := func(failures []Failure) (*Placement, error) {
		return nil, &Unsatisfied{Request: req.Name, Machine: s.machine.Name, Failures: failures}
	}
	if failures := req.check(); len(failures) > 0 {
		return refuse(failures)
	}
	if _, ok := s.placed[req.Name]; ok {
		return refuse([]Failure{{Constraint: "name", Problem: "the name is in use", Remedy: "release it first or choose another"}})
	}
	if err := cmp.Or(e.err(req.Name), s.matchSelectors(e.ctx, req)); err != nil {
		return nil, err
	}
	offer := s.offerOf(req, only)
	match, failures := s.matchDevices(req)
	failures = append(failures, offer.shortages()...)
	if len(failures) > 0 {
		return refuse(failures)
	}
	sets := []deviceSet{{}}
	if len(req.Devices) > 0 {
		sets = s.deviceSets(e, req, match)
	}
	best, second := s.rank(e, offer, sets)
	switch {
	case e.err(req.Name) != nil:
		return nil, e.err(req.Name)
	case len(sets) == 0:
		return refuse(append(s.linkFailures(req, match), e.cutOff()...))
	case best == nil:
		return refuse(append(offer.localityFailures(), e.cutOff()...))
	}
	p := offer.placement(best)
	s.explain(p, best, second)
	return p, nil
}

// rank returns the best and the second best candidate.
func (s *State) rank(e *effort, o *offer, sets []deviceSet) (best, second *candidate) {
	consider := func(c *candidate) {
		switch {
		case best == nil || c.compare(best) < 0:
			best, second = c, best
		case second == nil || c.compare(second) < 0:
			second = c
		}
	}
	for _, set := range sets {
		for _, nodes := range s.nodeSets(e, o.need(set), 2) {
			consider(&candidate{devices: set, nodes: nodes})
		}
	}
	for _, c := range []*candidate{best, second} {
		if c != nil && o.req.Exclusive {
			c.cpus = takeCPUs(o.freeOn(c.nodes.nodes), int(o.req.MilliCPU/1000))
		}
	}
	if best != nil && second == nil && o.req.Exclusive {
		second = o.otherCPUs(best)
	}
	return best, second
}
