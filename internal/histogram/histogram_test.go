package histogram

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// buckets is how many buckets count all values of 64 bits.
func buckets(l Layout) int { return l.Bucket(math.MaxUint64) + 1 }

func TestBucketsHoldWhatTheyCount(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, l := range []Layout{3, 6} {
		last := -1
		for v := uint64(0); v < 1<<13; v++ {
			b := l.Bucket(v)
			if b < last || b > last+1 || v < l.Lowest(b) || v > l.Highest(b) {
				t.Fatalf("layout %d: %d is in bucket %d, of %d to %d, after bucket %d", l, v, b, l.Lowest(b), l.Highest(b), last)
			}
			last = b
		}
		for range 10_000 {
			v := random.Uint64() >> random.IntN(64)
			b := l.Bucket(v)
			if v < l.Lowest(b) || v > l.Highest(b) || b >= buckets(l) {
				t.Fatalf("layout %d: %d is in bucket %d of %d, of %d to %d", l, v, b, buckets(l), l.Lowest(b), l.Highest(b))
			}
			if width := l.Highest(b) - l.Lowest(b) + 1; width > 1 && width > l.Lowest(b)>>l {
				t.Fatalf("layout %d: bucket %d from %d is %d wide", l, b, l.Lowest(b), width)
			}
		}
		if got := l.Highest(buckets(l) - 1); got != math.MaxUint64 {
			t.Errorf("layout %d: the last bucket ends at %d", l, got)
		}
	}
}

func TestQuantiles(t *testing.T) {
	const l = Layout(3)
	if got := l.Quantile(nil, .5); got != 0 {
		t.Errorf("of nothing: got %d", got)
	}
	counts := make([]uint64, buckets(l))
	for v := range uint64(1000) {
		counts[l.Bucket(v+1)]++
	}
	for q, want := range map[float64]uint64{0: 1, .001: 1, .5: 500, .99: 990, 1: 1000} {
		if got := l.Quantile(counts, q); got < want || got > want+want/8+1 {
			t.Errorf("quantile %v: got %d, want %d or up to an eighth more", q, got, want)
		}
	}
}

func TestCumulativeCountsNeverPromiseTooMuch(t *testing.T) {
	const l = Layout(3)
	counts := make([]uint64, l.Bucket(5000)+1)
	for _, v := range []uint64{1, 2, 15, 100, 1000, 5000} {
		counts[l.Bucket(v)]++
	}
	got := l.Cumulative(counts, []uint64{0, 1, 10, 1000, 1100, 4000, 6000, 1 << 40})
	if diff := cmp.Diff([]uint64{0, 1, 2, 4, 5, 5, 6, 6}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
