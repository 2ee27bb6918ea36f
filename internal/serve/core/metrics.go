package core

import (
	"errors"
	"sync/atomic"
	"time"

	"oscine.dev/oscine/internal/histogram"
)

// metrics counts a model's inferences without locks.
type metrics struct {
	requests, errors, missed, expired atomic.Int64
	loads, evictions                  atomic.Int64
	rows                              atomic.Int64 // of the runs that ended well
	queued                            atomic.Int64 // ns that requests waited, from their arrival to their run

	last atomic.Int64 // when the last answer was given, in ns since 1970

	latency durations

	hits, misses durations // of the response cache
}

// observe counts an answer that took d, which should have been at most within
// unless that is 0.
func (m *metrics) observe(d, within time.Duration, err error) {
	m.requests.Add(1)
	if errors.Is(err, ErrExpired) {
		m.expired.Add(1)
	} else if err == nil && within > 0 && d > within {
		m.missed.Add(1)
	}
	if err != nil {
		m.errors.Add(1)
		return
	}
	m.last.Store(time.Now().UnixNano())
	m.latency.observe(d)
}

// ran counts a batch that went to the worker at a time and was answered. It
// returns its rows.
func (m *metrics) ran(batch []*job, at time.Time) (rows int64) {
	var queued int64
	for _, j := range batch {
		rows += j.rows()
		queued += int64(max(at.Sub(j.arrived), 0))
	}
	m.rows.Add(rows)
	m.queued.Add(queued)
	return rows
}

func (m *metrics) fill(s *Status) {
	s.Requests, s.Errors = m.requests.Load(), m.errors.Load()
	s.Missed, s.Expired = m.missed.Load(), m.expired.Load()
	s.Loads, s.Evicted = m.loads.Load(), m.evictions.Load()
	if last := m.last.Load(); last > 0 {
		s.Last = time.Unix(0, last)
	}
	s.Rows, s.Queued = m.rows.Load(), time.Duration(m.queued.Load())
	counts := m.latency.counts()
	s.P50, s.P99 = m.latency.quantile(counts, 0.50), m.latency.quantile(counts, 0.99)
}

// layout lets a quantile be off by at most an eighth.
const layout = histogram.Layout(3)

// durations counts durations without a lock; the last bucket holds all from an
// hour on.
type durations struct {
	buckets [320]atomic.Uint64
	sum     atomic.Int64 // ns
	longest atomic.Int64 // ns
}

func (h *durations) observe(d time.Duration) {
	d = max(d, 0)
	h.buckets[min(layout.Bucket(uint64(d)), len(h.buckets)-1)].Add(1)
	h.sum.Add(int64(d))
	for old := h.longest.Load(); int64(d) > old && !h.longest.CompareAndSwap(old, int64(d)); old = h.longest.Load() {
	}
}

// counts reads the buckets while others go on counting.
func (h *durations) counts() []uint64 {
	counts := make([]uint64, len(h.buckets))
	for i := range h.buckets {
		counts[i] = h.buckets[i].Load()
	}
	return counts
}

// count is how many durations were counted.
func (h *durations) count() (n int64) {
	for _, bucket := range h.counts() {
		n += int64(bucket)
	}
	return n
}

func (h *durations) quantile(counts []uint64, q float64) time.Duration {
	return min(time.Duration(layout.Quantile(counts, q)), time.Duration(h.longest.Load()))
}

// Durations is how long a model's answers took, inside the daemon and worker.
type Durations struct {
	Count  uint64
	Sum    time.Duration
	Within []uint64 // how many took at most each bound that was asked for
}

// Durations tells how long the answers of a model took since Add, and how many
// of them at most each of the bounds, which ascend; or ErrNotFound.
func (r *Registry) Durations(name string, bounds []time.Duration) (Durations, error) {
	m, err := r.model(name)
	if err != nil {
		return Durations{}, err
	}
	h := &m.metrics.latency
	out := Durations{Sum: time.Duration(h.sum.Load())}
	counts := h.counts()
	for _, n := range counts {
		out.Count += n
	}
	nanoseconds := make([]uint64, len(bounds))
	for i, b := range bounds {
		nanoseconds[i] = uint64(b)
	}
	out.Within = layout.Cumulative(counts, nanoseconds)
	return out, nil
}
