package place

import (
	"context"
)

// device is a CPU as selectors see it: by the names of the Kubernetes DRA
// driver for CPUs (kubernetes-sigs/dra-driver-cpu), dra.cpu/cpuID, coreID,
// cacheL3ID, numaNodeID, socketID and coreType ("p-core", "e-core" or
// "standard"), and resource.kubernetes.io/numaNode.
func (c *CPU) device() *Device {
	kind := "standard"
	switch c.Kind {
	case "performance":
		kind = "p-core"
	case "efficiency", "low-power":
		kind = "e-core"
	}
	d := &Device{Driver: "dra.cpu", Attributes: map[string]any{
		"cpuID": int64(c.ID), "coreID": int64(c.Core),
		"numaNodeID": int64(c.NUMA), "coreType": kind,
		"resource.kubernetes.io/numaNode": int64(c.NUMA),
	}}
	if c.Package >= 0 {
		d.Attributes["socketID"] = int64(c.Package)
	}
	if c.Cache >= 0 {
		d.Attributes["cacheL3ID"] = int64(c.Cache)
	}
	return d
}

// cpuMatch is the outcome of a selector over all CPUs.
type cpuMatch struct {
	cpus map[int]bool // by ID
	err  error        // of an expression that costs too much
}

// selectedCPUs returns the CPUs that match a selector, evaluated once for each
// CPU and machine. A CPU on which it fails does not match.
func (s *State) selectedCPUs(ctx context.Context, sel *Selector) (cpuMatch, error) {
	if m, ok := s.cpuMatches.of(sel); ok {
		return m, nil
	}
	m := cpuMatch{cpus: map[int]bool{}}
	within, cancel := context.WithTimeout(ctx, maxMatchingTime)
	defer cancel()
	budget := uint64(maxMatchingCost)
	for i := range s.machine.CPUs {
		c := &s.machine.CPUs[i]
		ok, err := sel.match(within, c.device(), &budget)
		switch {
		case ctx.Err() != nil:
			return m, ctx.Err()
		case tooDear(within, err) != nil:
			m = cpuMatch{err: tooDear(within, err)}
		case err == nil && ok:
			m.cpus[c.ID] = true
		}
		if m.err != nil {
			break
		}
	}
	s.cpuMatches.keep(sel, m)
	return m, nil
}

// selected keeps the CPUs that match the request's selector.
func (s *State) selected(req *Request, cpus []*CPU) []*CPU {
	if req.CPUs.String() == "" {
		return cpus
	}
	m, err := s.selectedCPUs(context.Background(), req.CPUs) // known since matchSelectors
	if err != nil {
		return nil
	}
	var kept []*CPU
	for _, c := range cpus {
		if m.cpus[c.ID] {
			kept = append(kept, c)
		}
	}
	return kept
}

// suits reports whether a request may use a cell. Shared time is counted for
// the whole cell, so that all its CPUs must match a shared request's selector;
// an exclusive one needs some.
func (s *State) suits(c *cell, req *Request) bool {
	if !c.suits(req) {
		return false
	}
	if req.CPUs.String() == "" {
		return true
	}
	n := len(s.selected(req, c.cpus))
	return n == len(c.cpus) || (req.Exclusive && n > 0)
}
