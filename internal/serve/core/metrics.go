package core

import (
	"errors"
	"math/bits"
	"sync/atomic"
	"time"
)

// metrics counts a model's inferences without locks.
type metrics struct {
	requests, errors, missed, expired atomic.Int64

	latency histogram
}

// observe counts an answer that took d, which should have been at most the
// objective unless that is 0.
func (m *metrics) observe(d, objective time.Duration, err error) {
	m.requests.Add(1)
	if errors.Is(err, ErrExpired) {
		m.expired.Add(1)
	} else if err == nil && objective > 0 && d > objective {
		m.missed.Add(1)
	}
	if err != nil {
		m.errors.Add(1)
		return
	}
	m.latency.observe(d)
}

func (m *metrics) fill(s *Status) {
	s.Requests, s.Errors = m.requests.Load(), m.errors.Load()
	s.Missed, s.Expired = m.missed.Load(), m.expired.Load()
	s.P50, s.P99 = m.latency.quantile(0.50), m.latency.quantile(0.99)
}

// histogram counts durations in buckets that grow by an eighth of a power of
// two, so that a quantile is off by at most 12.5 %.
type histogram struct {
	buckets [64 * 8]atomic.Int64
	longest atomic.Int64 // ns
}

func bucket(d time.Duration) int {
	n := uint64(max(d, 8))
	exp := bits.Len64(n) - 1
	return exp*8 + int(n>>(exp-3)&7)
}

// upper is the largest duration of a bucket.
func upper(b int) time.Duration {
	exp, sub := b/8, b%8
	return time.Duration((uint64(sub)+9)<<(exp-3) - 1)
}

func (h *histogram) observe(d time.Duration) {
	h.buckets[bucket(d)].Add(1)
	for old := h.longest.Load(); int64(d) > old && !h.longest.CompareAndSwap(old, int64(d)); old = h.longest.Load() {
	}
}

func (h *histogram) quantile(q float64) time.Duration {
	var counts [len(h.buckets)]int64
	var total int64
	for i := range h.buckets {
		counts[i] = h.buckets[i].Load()
		total += counts[i]
	}
	if total == 0 {
		return 0
	}
	rank := int64(q*float64(total-1)) + 1
	for i, n := range counts {
		if rank -= n; rank <= 0 {
			return min(upper(i), time.Duration(h.longest.Load()))
		}
	}
	return time.Duration(h.longest.Load())
}
