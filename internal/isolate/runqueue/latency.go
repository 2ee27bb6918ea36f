package runqueue

import (
	"time"

	"oscine.dev/oscine/internal/histogram"
)

// The buckets of bpf/runqueue.bpf.c: a quantile is off by at most an eighth.
const (
	layout  = histogram.Layout(3)
	buckets = 35 << layout
)

// counters are struct histogram of bpf/runqueue.bpf.c.
type counters struct {
	Objective uint64 // ns
	Missed    uint64
	Count     uint64
	Sum       uint64 // ns
	Max       uint64 // ns
	Buckets   [buckets]uint64
}

// Latency is how long threads waited for a processor after they were woken.
type Latency struct{ h counters }

// Count is the number of wake-ups.
func (l *Latency) Count() uint64 { return l.h.Count }

// Missed is how many took longer than the objective.
func (l *Latency) Missed() uint64 { return l.h.Missed }

// Max is the longest, exact; of a difference, the longest of all before it.
func (l *Latency) Max() time.Duration { return time.Duration(l.h.Max) }

// Quantile returns the time that the fraction q of all wake-ups did not
// exceed, to the width of a bucket; 0 of none.
func (l *Latency) Quantile(q float64) time.Duration {
	return min(time.Duration(layout.Quantile(l.h.Buckets[:], q)), l.Max())
}

// Sum is how long all wake-ups took together.
func (l *Latency) Sum() time.Duration { return time.Duration(l.h.Sum) }

// Within returns how many wake-ups took at most each of the given times, which
// ascend. One counts as the longest of its bucket.
func (l *Latency) Within(bounds []time.Duration) []uint64 {
	nanoseconds := make([]uint64, len(bounds))
	for i, b := range bounds {
		nanoseconds[i] = uint64(b)
	}
	return layout.Cumulative(l.h.Buckets[:], nanoseconds)
}

// Since returns what was measured after an earlier reading of the same cgroup.
func (l *Latency) Since(earlier *Latency) Latency {
	d := l.h
	if earlier.h.Count > d.Count {
		return Latency{d} // its cgroup was made again
	}
	d.Count -= earlier.h.Count
	d.Missed -= min(d.Missed, earlier.h.Missed)
	d.Sum -= min(d.Sum, earlier.h.Sum)
	for i := range d.Buckets {
		d.Buckets[i] -= min(d.Buckets[i], earlier.h.Buckets[i])
	}
	return Latency{d}
}
