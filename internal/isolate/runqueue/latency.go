package runqueue

import "time"

// subBits gives each power of two 2^subBits buckets, so that a quantile is off
// by at most an eighth. The buckets are those of bpf/runqueue.bpf.c.
const (
	subBits = 3
	buckets = 35 << subBits
)

// histogram is struct histogram of bpf/runqueue.bpf.c.
type histogram struct {
	Objective uint64 // ns
	Missed    uint64
	Count     uint64
	Sum       uint64 // ns
	Max       uint64 // ns
	Buckets   [buckets]uint64
}

// Latency is how long threads waited for a processor after they were woken.
type Latency struct{ h histogram }

// Count is the number of wake-ups.
func (l *Latency) Count() uint64 { return l.h.Count }

// Missed is how many took longer than the objective.
func (l *Latency) Missed() uint64 { return l.h.Missed }

// Max is the longest, exact; of a difference, the longest of all before it.
func (l *Latency) Max() time.Duration { return time.Duration(l.h.Max) }

// Quantile returns the time that the fraction q of all wake-ups did not
// exceed, to the width of a bucket; 0 of none.
func (l *Latency) Quantile(q float64) time.Duration {
	var total, seen uint64
	for _, n := range l.h.Buckets {
		total += n
	}
	rank := max(1, uint64(q*float64(total)+0.9999))
	for i, n := range l.h.Buckets {
		if seen += n; seen >= rank && n > 0 {
			return min(longest(i), l.Max())
		}
	}
	return 0
}

// Since returns what was measured after an earlier reading of the same cgroup.
func (l *Latency) Since(earlier *Latency) Latency {
	d := l.h
	if earlier.h.Count > d.Count {
		return Latency{d} // it was measured anew
	}
	d.Count -= earlier.h.Count
	d.Missed -= min(d.Missed, earlier.h.Missed)
	d.Sum -= min(d.Sum, earlier.h.Sum)
	for i := range d.Buckets {
		d.Buckets[i] -= min(d.Buckets[i], earlier.h.Buckets[i])
	}
	return Latency{d}
}

// longest is the largest duration of a bucket.
func longest(bucket int) time.Duration {
	if bucket < 2<<subBits {
		return time.Duration(bucket)
	}
	shift := bucket>>subBits - 1
	low := uint64(bucket&(1<<subBits-1)|1<<subBits) << shift
	return time.Duration(low + 1<<shift - 1)
}
