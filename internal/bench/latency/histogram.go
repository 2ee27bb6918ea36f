package latency

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"time"
)

// subBits gives each power of two 2^subBits buckets, so a recorded value is
// exact to 1/64 of itself.
const subBits = 6

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
	i := bucketOf(uint64(d))
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

func bucketOf(v uint64) int {
	if v < 1<<subBits {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return shift<<subBits + int(v>>shift)
}

// lowest is the smallest value of bucket i, in nanoseconds.
func lowest(i int) uint64 {
	if i < 2<<subBits {
		return uint64(i)
	}
	shift := i>>subBits - 1
	return uint64(i&(1<<subBits-1)|1<<subBits) << shift
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
	rank := uint64(q * float64(h.n))
	if float64(rank) < q*float64(h.n) {
		rank++
	}
	rank = max(rank, 1)
	var seen uint64
	for i, c := range h.counts {
		if seen += c; seen >= rank {
			return min(time.Duration(lowest(i+1)-1), h.max)
		}
	}
	return h.max
}

// Above is how many durations fell into buckets that begin above d.
func (h *Histogram) Above(d time.Duration) uint64 {
	var n uint64
	for i, c := range h.counts {
		if c > 0 && lowest(i) > uint64(max(d, 0)) {
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
			out = append(out, Bucket{time.Duration(lowest(i)), c})
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

// maxBuckets bounds what UnmarshalJSON allocates.
const maxBuckets = (65 - subBits) << subBits

// UnmarshalJSON reads what MarshalJSON wrote.
func (h *Histogram) UnmarshalJSON(data []byte) error {
	var in histogramJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	*h = Histogram{n: in.Count, sum: in.Mean * time.Duration(in.Count), min: in.Min, max: in.Max}
	var total uint64
	for _, b := range in.Buckets {
		i := bucketOf(uint64(max(b.From, 0)))
		if i >= maxBuckets {
			return fmt.Errorf("histogram: bucket %d is out of range", b.From)
		}
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
