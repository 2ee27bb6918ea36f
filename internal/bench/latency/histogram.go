package latency

import (
	"encoding/json"
	"fmt"
	"time"

	"oscine.dev/oscine/internal/histogram"
)

// layout keeps a recorded value exact to 1/64 of itself.
const layout = histogram.Layout(6)

// Histogram counts durations in buckets whose width grows with the value. The
// zero value is empty. It is not safe for concurrent use.
type Histogram struct {
	counts []uint64
	n      uint64
	sum    time.Duration
	min    time.Duration
	max    time.Duration
}

// Record counts d; a negative d counts as 0.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	i := layout.Bucket(uint64(d))
	if i >= len(h.counts) {
		h.counts = append(h.counts, make([]uint64, i+1-len(h.counts))...)
	}
	if h.n == 0 || d < h.min {
		h.min = d
	}
	h.counts[i]++
	h.n++
	h.sum += d
	h.max = max(h.max, d)
}

// Count is the number of recorded durations.
func (h *Histogram) Count() uint64 { return h.n }

// Min is the shortest recorded duration, 0 of an empty histogram.
func (h *Histogram) Min() time.Duration { return h.min }

// Max is the longest recorded duration, exact.
func (h *Histogram) Max() time.Duration { return h.max }

// Mean is the average, 0 of an empty histogram.
func (h *Histogram) Mean() time.Duration {
	if h.n == 0 {
		return 0
	}
	return h.sum / time.Duration(h.n)
}

// Quantile returns the value that the fraction q of all durations does not
// exceed, to the width of a bucket; 0 of an empty histogram.
func (h *Histogram) Quantile(q float64) time.Duration {
	return min(time.Duration(layout.Quantile(h.counts, q)), h.max)
}

// Above is how many durations fell into buckets that begin above d.
func (h *Histogram) Above(d time.Duration) uint64 {
	var n uint64
	for i, c := range h.counts {
		if c > 0 && layout.Lowest(i) > uint64(max(d, 0)) {
			n += c
		}
	}
	return n
}

// Merge adds the counts of other.
func (h *Histogram) Merge(other *Histogram) {
	if other.n == 0 {
		return
	}
	if len(other.counts) > len(h.counts) {
		h.counts = append(h.counts, make([]uint64, len(other.counts)-len(h.counts))...)
	}
	for i, c := range other.counts {
		h.counts[i] += c
	}
	if h.n == 0 || other.min < h.min {
		h.min = other.min
	}
	h.n += other.n
	h.sum += other.sum
	h.max = max(h.max, other.max)
}

// Bucket is one non-empty bucket.
type Bucket struct {
	From  time.Duration `json:"fromNs"` // the smallest duration it counts
	Count uint64        `json:"count"`
}

// Buckets lists the buckets that are not empty, from the shortest.
func (h *Histogram) Buckets() []Bucket {
	var out []Bucket
	for i, c := range h.counts {
		if c > 0 {
			out = append(out, Bucket{time.Duration(layout.Lowest(i)), c})
		}
	}
	return out
}

type histogramJSON struct {
	Count   uint64        `json:"count"`
	Min     time.Duration `json:"minNs"`
	Mean    time.Duration `json:"meanNs"`
	P50     time.Duration `json:"p50Ns"`
	P90     time.Duration `json:"p90Ns"`
	P99     time.Duration `json:"p99Ns"`
	P999    time.Duration `json:"p999Ns"`
	Max     time.Duration `json:"maxNs"`
	Buckets []Bucket      `json:"buckets"`
}

// MarshalJSON writes quantiles for readers and the buckets for programs.
func (h *Histogram) MarshalJSON() ([]byte, error) {
	return json.Marshal(histogramJSON{
		h.n, h.min, h.Mean(), h.Quantile(.5), h.Quantile(.9), h.Quantile(.99), h.Quantile(.999), h.max, h.Buckets(),
	})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (h *Histogram) UnmarshalJSON(data []byte) error {
	var in histogramJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	*h = Histogram{n: in.Count, sum: in.Mean * time.Duration(in.Count), min: in.Min, max: in.Max}
	var total uint64
	for _, b := range in.Buckets {
		i := layout.Bucket(uint64(max(b.From, 0)))
		if i >= len(h.counts) {
			h.counts = append(h.counts, make([]uint64, i+1-len(h.counts))...)
		}
		h.counts[i] += b.Count
		total += b.Count
	}
	if total != in.Count {
		return fmt.Errorf("histogram: the buckets hold %d values, not %d", total, in.Count)
	}
	return nil
}
