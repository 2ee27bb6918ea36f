package place

import "slices"

// cpuSort narrows the CPUs that an exclusive request may have.
type cpuSort int

const (
	anyCPUs cpuSort = iota
	isolatedCPUs
	commonCPUs // that the kernel balances work over
)

func (sort cpuSort) has(c *CPU) bool {
	return sort == anyCPUs || c.Isolated == (sort == isolatedCPUs)
}

// preference is a request for better suited CPUs than another insists on.
type preference struct {
	req  Request
	only cpuSort
}

// preferences are to be tried before a request as it is. Isolated CPUs are for
// real-time work: the kernel does not move threads between them, so that those
// of others would crowd on one of several.
func (s *State) preferences(req *Request) []preference {
	var all []preference
	kind := s.preferredKind(req)
	add := func(kind string, only cpuSort) {
		p := preference{*req, only}
		if kind != "" {
			p.req.CoreKind = kind
		}
		all = append(all, p)
	}
	if req.Exclusive && s.hasIsolated {
		only := commonCPUs
		if req.Class == Realtime {
			only = isolatedCPUs
		}
		if kind != "" {
			add(kind, only)
		}
		add("", only)
	}
	if kind != "" {
		add(kind, anyCPUs)
	}
	return all
}

// preferredKind is the kind of cores that suits a request which names none, on
// a machine with several: the fast ones where answers must be quick, the small
// ones for batch work. Where they are full, any will do.
func (s *State) preferredKind(req *Request) string {
	want := "performance"
	switch {
	case req.CoreKind != "" || req.MilliCPU == 0:
		return ""
	case req.Class == Batch:
		want = "efficiency"
	case req.Class != Realtime && req.Latency == 0:
		return ""
	}
	if slices.ContainsFunc(s.cells, func(c cell) bool { return c.kind == want }) &&
		slices.ContainsFunc(s.cells, func(c cell) bool { return c.kind != want }) {
		return want
	}
	return ""
}
