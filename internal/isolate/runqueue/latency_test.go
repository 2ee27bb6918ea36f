package runqueue

import (
	"errors"
	"math/bits"
	"testing"
	"time"

	"oscine.dev/oscine/internal/bpf"
)

// bucketOf is what bpf/runqueue.bpf.c does.
func bucketOf(ns uint64) int {
	const subBits = 3
	shift := max(0, bits.Len64(ns)-subBits-1)
	return min(shift<<subBits+int(ns>>shift), buckets-1)
}

func latencyOf(all ...time.Duration) Latency {
	var l Latency
	for _, d := range all {
		l.h.Count++
		l.h.Buckets[bucketOf(uint64(d))]++
		l.h.Max = max(l.h.Max, uint64(d))
	}
	return l
}

func TestKernelAndWeCountInTheSameBuckets(t *testing.T) {
	for ns := uint64(0); ns < 1<<36; ns += ns/20 + 1 {
		if got, want := layout.Bucket(ns), bucketOf(ns); got != want {
			t.Fatalf("%d ns is in bucket %d, the kernel has it in %d", ns, got, want)
		}
	}
}

func TestQuantilesAndDifferences(t *testing.T) {
	var all []time.Duration
	for us := range 1000 {
		all = append(all, time.Duration(us)*time.Microsecond)
	}
	early, late := latencyOf(all[:500]...), latencyOf(all...)
	for q, want := range map[float64]time.Duration{.5: 500 * time.Microsecond, .99: 990 * time.Microsecond, 1: 999 * time.Microsecond} {
		if got := late.Quantile(q); got < want-time.Microsecond || got > want+want/8 {
			t.Errorf("quantile %g: got %v, want %v", q, got, want)
		}
	}
	recent := late.Since(&early)
	if got := recent.Quantile(.01); recent.Count() != 500 || got < 500*time.Microsecond {
		t.Errorf("of the later half: %d with a first hundredth of %v", recent.Count(), got)
	}
	if none := (Latency{}); none.Quantile(.99) != 0 {
		t.Error("a quantile of nothing")
	}
	if again := early.Since(&late); again.Count() != 500 {
		t.Errorf("measured again: got %d, want all 500", again.Count())
	}
}

func TestObjectIsWhole(t *testing.T) {
	spec, err := bpf.Read(objects, object)
	if errors.Is(err, bpf.ErrNotBuilt) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, want := int(spec.Maps["workloads"].ValueSize), (5+buckets)*8; got != want {
		t.Errorf("a histogram has %d bytes, want %d", got, want)
	}
}
