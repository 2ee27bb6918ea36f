package cli

import (
	"fmt"
	"io"
	"math"
	"time"

	dto "github.com/prometheus/client_model/go"

	"oscine.dev/oscine/internal/bench/latency"
)

// servingTitles are the columns of serving.
const servingTitles = "\tREQUESTS/S\tP50\tP99\tWAIT\tPENDING\tBATCH\tLATE/S"

const topModelsHelp = `

Of models it also shows what they serve: requests a second, the latency inside the
node that half and 99 % of the answers kept, the mean time that requests waited for
their run, how many wait now, the mean rows of a run, and answers a second that
missed their deadline. --histogram shows how the latencies are distributed.`

// model returns the model's metric in both samples, nil where there is none.
func (u *usage) model(name string, labels ...string) (before, after *dto.Metric) {
	want := map[string]string{"model": u.name}
	for i := 0; i+1 < len(labels); i += 2 {
		want[labels[i]] = labels[i+1]
	}
	return u.before.find("model_"+name, want), u.after.find("model_"+name, want)
}

// grew is how much a counter of the model grew; NaN where it is not told or
// began again.
func (u *usage) grew(name string, labels ...string) float64 {
	before, after := u.model(name, labels...)
	d := after.GetCounter().GetValue() - before.GetCounter().GetValue()
	if before == nil || after == nil || d < 0 {
		return math.NaN()
	}
	return d
}

// requests are those answered, with whatever result.
func (u *usage) requests() float64 {
	all := math.NaN()
	for _, result := range []string{"success", "error", "expired"} {
		switch n := u.grew("requests_total", "result", result); {
		case math.IsNaN(n):
		case math.IsNaN(all):
			all = n
		default:
			all += n
		}
	}
	return all
}

// serving are the cells of a model below servingTitles.
func (u *usage) serving() []string {
	number := func(format string, v float64) string {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return unknown
		}
		return fmt.Sprintf(format, v)
	}
	p50, p99 := unknown, unknown
	if h := u.latencies(); h != nil {
		p50, p99 = h.quantile(.5), h.quantile(.99)
	}
	wait := unknown
	answered := u.grew("requests_total", "result", "success")
	if seconds := u.grew("queue_duration_seconds_total") / answered; !math.IsNaN(seconds) && !math.IsInf(seconds, 0) {
		wait = short(seconds)
	}
	pending := unknown
	if _, now := u.model("pending_requests"); now != nil {
		pending = fmt.Sprintf("%.0f", now.GetGauge().GetValue())
	}
	return []string{
		number("%.1f", u.requests()/u.seconds()), p50, p99, wait, pending,
		number("%.1f", u.grew("rows_total")/u.grew("runs_total")), number("%.1f", u.grew("deadline_misses_total")/u.seconds()),
	}
}

func short(seconds float64) string {
	return latency.Short(time.Duration(seconds * float64(time.Second)))
}

// latencies are those of the model's answers between the samples, nil where
// there were none.
func (u *usage) latencies() *distribution { return between(u.model("request_duration_seconds")) }

// writeLatencies draws them.
func (u *usage) writeLatencies(w io.Writer) error {
	h := u.latencies()
	if h == nil || h.count == 0 {
		return nil
	}
	fmt.Fprintf(w, "\n%s: latency of %d requests in %v\n", forTerminal(w, u.name), h.count, u.after.at.Sub(u.before.at).Round(time.Millisecond))
	rest := h.count
	for _, n := range h.counts {
		rest -= n
	}
	err := latency.WriteBars(w, h.bounds, h.counts)
	if rest > 0 && err == nil {
		_, err = fmt.Fprintf(w, "%d took longer\n", rest)
	}
	return err
}

// distribution is what a histogram counted between two samples.
type distribution struct {
	count  uint64
	bounds []time.Duration // of the buckets, ascending
	counts []uint64        // in each bucket; what is above all of them is in count alone
}

// between returns what was counted between two samples of a histogram; nil where
// one is missing or it began again.
func between(before, after *dto.Metric) *distribution {
	if before == nil || after == nil || after.GetHistogram().GetSampleCount() < before.GetHistogram().GetSampleCount() {
		return nil
	}
	h := &distribution{count: after.GetHistogram().GetSampleCount() - before.GetHistogram().GetSampleCount()}
	earlier := map[float64]uint64{}
	for _, b := range before.GetHistogram().GetBucket() {
		earlier[b.GetUpperBound()] = b.GetCumulativeCount()
	}
	var below uint64
	for _, b := range after.GetHistogram().GetBucket() {
		if math.IsInf(b.GetUpperBound(), 1) {
			break // h.count has them
		}
		within := max(b.GetCumulativeCount()-earlier[b.GetUpperBound()], below)
		h.counts = append(h.counts, within-below)
		h.bounds = append(h.bounds, time.Duration(b.GetUpperBound()*float64(time.Second)))
		below = within
	}
	return h
}

// quantile is the bound that a share kept.
func (h *distribution) quantile(share float64) string {
	var below uint64
	for i, n := range h.counts {
		below += n
		if h.count > 0 && float64(below) >= share*float64(h.count) {
			return h.bounds[i].Round(100 * time.Nanosecond).String()
		}
	}
	return unknown
}
