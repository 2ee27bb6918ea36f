package client

import (
	"math"

	dto "github.com/prometheus/client_model/go"
)

// Histogram is what a histogram among a node's metrics counted.
type Histogram struct {
	Count  uint64
	Bounds []float64 // of the buckets, ascending and finite, in the metric's unit
	Counts []uint64  // in each bucket; what is above all of them is in Count alone
}

// HistogramOf is what a metric counted since it began.
func HistogramOf(m *dto.Metric) *Histogram { return subtract(m.GetHistogram(), nil) }

// Between is what a metric counted between two samples of it; nil where one is
// missing or it began again.
func Between(before, after *dto.Metric) *Histogram {
	if before == nil || after == nil || after.GetHistogram().GetSampleCount() < before.GetHistogram().GetSampleCount() {
		return nil
	}
	return subtract(after.GetHistogram(), before.GetHistogram())
}

func subtract(after, before *dto.Histogram) *Histogram {
	h := &Histogram{Count: after.GetSampleCount() - before.GetSampleCount()}
	earlier := map[float64]uint64{}
	for _, b := range before.GetBucket() {
		earlier[b.GetUpperBound()] = b.GetCumulativeCount()
	}
	below := uint64(0)
	for _, b := range after.GetBucket() {
		bound := b.GetUpperBound()
		if math.IsInf(bound, 1) || math.IsNaN(bound) {
			break
		}
		within := below // a count that falls, as none should, is of no use
		if now := b.GetCumulativeCount(); now >= earlier[bound] {
			within = max(below, now-earlier[bound])
		}
		h.Bounds, h.Counts = append(h.Bounds, bound), append(h.Counts, within-below)
		below = within
	}
	return h
}

// Quantile is the bound that a share of what was counted kept; false where nothing
// was counted, or more than the rest is above all bounds.
func (h *Histogram) Quantile(share float64) (bound float64, ok bool) {
	below := uint64(0)
	for i, n := range h.Counts {
		below += n
		if h.Count > 0 && float64(below) >= share*float64(h.Count) {
			return h.Bounds[i], true
		}
	}
	return 0, false
}

// Above is how many were above all bounds.
func (h *Histogram) Above() uint64 {
	within := uint64(0)
	for _, n := range h.Counts {
		within += n
	}
	return h.Count - min(h.Count, within)
}
