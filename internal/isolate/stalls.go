package isolate

import (
	"path/filepath"
	"time"
)

// stalls adds up what interactive work has waited for memory and disks through
// the doing of others. Waiting for a processor does not count: cpu.idle all
// but excludes that it is batch's fault. Nor does memory count where a workload
// is at its own limit: no other can help it.
type stalls struct {
	class map[string]time.Duration            // of the whole class, by resource
	work  map[string]map[string]time.Duration // of each workload
	limit map[string]uint64                   // how often each was at its limit
	total time.Duration
	why   string // the resource most waited for in the last look that found any
}

// of returns the running total and what is waited for. It costs two reads while
// all is well.
func (s *stalls) of(i *Isolator) (time.Duration, string) {
	if s.class == nil {
		s.class, s.work, s.limit = map[string]time.Duration{}, map[string]map[string]time.Duration{}, map[string]uint64{}
	}
	var largest time.Duration
	class := filepath.Join(i.o.Slice, string(Interactive))
	for _, what := range []string{"memory", "io"} {
		now := i.someStall(class, what)
		grown := now - s.class[what]
		s.class[what] = now
		if grown <= 0 {
			continue
		}
		grown = min(grown, s.grownBy(i, what))
		s.total += grown
		if grown > largest {
			largest, s.why = grown, what
		}
	}
	if s.why == "" {
		s.why = "memory"
	}
	return s.total, s.why
}

// grownBy adds up what single workloads waited since the last look that found
// any.
func (s *stalls) grownBy(i *Isolator, what string) time.Duration {
	var sum time.Duration
	held := i.view().held
	for id := range s.work {
		if held[id] == nil {
			delete(s.work, id)
			delete(s.limit, id)
		}
	}
	for id, h := range held {
		if h.spec.Class != Interactive {
			continue
		}
		if s.work[id] == nil {
			s.work[id] = map[string]time.Duration{}
		}
		now := i.someStall(h.group(), what)
		grown := now - s.work[id][what]
		s.work[id][what] = now
		if what == "memory" && s.atLimit(i, id, h) {
			continue
		}
		sum += max(grown, 0)
	}
	return sum
}

// atLimit reports whether a workload met its own memory limit since the last
// look.
func (s *stalls) atLimit(i *Isolator, id string, h *holding) bool {
	now := i.incidents(h.group()).Reclaimed
	before := s.limit[id]
	s.limit[id] = now
	return now > before
}

// someStall is how long some thread of a cgroup has waited in all.
func (i *Isolator) someStall(group, what string) time.Duration {
	text, err := i.cg.get(group, what+".pressure")
	if err != nil {
		return 0
	}
	return time.Duration(parsePressure(text).Some)
}
