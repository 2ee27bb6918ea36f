package histogram

import "math/bits"

// Layout is how many bits of a value below its highest are kept: each power of
// two has 1<<Layout buckets, and values below 2<<Layout one each. A value is
// known to 1 in 1<<Layout.
type Layout int

// Bucket is the index of the bucket that counts v.
func (l Layout) Bucket(v uint64) int {
	if v < 1<<l {
		return int(v)
	}
	shift := bits.Len64(v) - int(l) - 1
	return shift<<l + int(v>>shift)
}

// Lowest is the smallest value of a bucket.
func (l Layout) Lowest(bucket int) uint64 {
	if bucket < 2<<l {
		return uint64(bucket)
	}
	shift := bucket>>l - 1
	return uint64(bucket&(1<<l-1)|1<<l) << shift
}

// Highest is the largest value of a bucket.
func (l Layout) Highest(bucket int) uint64 { return l.Lowest(bucket+1) - 1 }

// Quantile returns the largest value of the bucket that holds the fraction q of
// all that was counted, or 0 where nothing was.
func (l Layout) Quantile(counts []uint64, q float64) uint64 {
	var total, seen uint64
	for _, n := range counts {
		total += n
	}
	rank := uint64(q * float64(total))
	if float64(rank) < q*float64(total) {
		rank++
	}
	rank = max(rank, 1)
	for bucket, n := range counts {
		if seen += n; seen >= rank && n > 0 {
			return l.Highest(bucket)
		}
	}
	return 0
}

// Cumulative returns how many values were at most each of the given bounds,
// which ascend. A value counts as the largest of its bucket.
func (l Layout) Cumulative(counts, bounds []uint64) []uint64 {
	out := make([]uint64, len(bounds))
	var seen uint64
	at := 0
	for bucket, n := range counts {
		for ; at < len(bounds) && l.Highest(bucket) > bounds[at]; at++ {
			out[at] = seen
		}
		seen += n
	}
	for ; at < len(bounds); at++ {
		out[at] = seen
	}
	return out
}
