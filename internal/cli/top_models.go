package cli

import (
	"fmt"
	"io"
	"math"
	"time"

	dto "github.com/prometheus/client_model/go"

	"oscine.dev/oscine/internal/bench/latency"
	"oscine.dev/oscine/internal/client"
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
			return ""
		}
		return fmt.Sprintf(format, v)
	}
	p50, p99 := "", ""
	if h := u.latencies(); h != nil {
		p50, p99 = quantile(h, .5), quantile(h, .99)
	}
	wait := ""
	answered := u.grew("requests_total", "result", "success")
	if seconds := u.grew("queue_duration_seconds_total") / answered; !math.IsNaN(seconds) && !math.IsInf(seconds, 0) {
		wait = short(seconds)
	}
	pending := ""
	if _, now := u.model("pending_requests"); now != nil {
		pending = fmt.Sprintf("%.0f", now.GetGauge().GetValue())
	}
	return []string{
		number("%.1f", u.requests()/u.seconds()), p50, p99, wait, pending,
		number("%.1f", u.grew("rows_total")/u.grew("runs_total")), number("%.1f", u.grew("deadline_misses_total")/u.seconds()),
	}
}

func short(seconds float64) string { return latency.Short(duration(seconds)) }

func duration(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

// quantile is the bound in seconds that a share kept, empty where there is none.
func quantile(h *client.Histogram, share float64) string {
	bound, ok := h.Quantile(share)
	if !ok {
		return ""
	}
	return short(bound)
}

// latencies are those of the model's answers between the samples, nil where
// there were none.
func (u *usage) latencies() *client.Histogram {
	return client.Between(u.model("request_duration_seconds"))
}

// writeLatencies draws them.
func (u *usage) writeLatencies(w io.Writer) error {
	h := u.latencies()
	if h == nil || h.Count == 0 {
		return nil
	}
	fmt.Fprintf(w, "\n%s: latency of %d requests in %v\n", forTerminal(w, u.name), h.Count, u.after.at.Sub(u.before.at).Round(time.Millisecond))
	bounds := make([]time.Duration, len(h.Bounds))
	for i, bound := range h.Bounds {
		bounds[i] = duration(bound)
	}
	err := latency.WriteBars(w, bounds, h.Counts)
	if above := h.Above(); above > 0 && err == nil {
		_, err = fmt.Fprintf(w, "%d took longer\n", above)
	}
	return err
}
