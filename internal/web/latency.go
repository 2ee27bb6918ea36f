package web

import (
	"context"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"

	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/printable"
)

const (
	// durations is the metric of docs/metrics.md.
	durations = "oscine_model_request_duration_seconds"
	// maxBars is as many as can be told apart.
	maxBars = 48
)

// latencies is how long the requests of one model took inside the node.
type latencies struct {
	Model string  `json:"model"`
	Count uint64  `json:"count"`
	P50   float64 `json:"p50"` // seconds; an upper bound, as a bucket's are
	P99   float64 `json:"p99"`
	Bars  []bar   `json:"bars"`
}

// bar counts the requests that took at most To seconds and more than the bar
// before it.
type bar struct {
	To    float64 `json:"to"` // seconds; -1 for without bound
	Count uint64  `json:"count"`
}

// latency tells the models' histograms, which are in the node's metrics.
func (s *Server) latency(ctx context.Context, f *feed, up func()) error {
	return every(ctx, latencyInterval, func() error {
		found, err := s.scrape(ctx)
		if err != nil {
			return err
		}
		up()
		return f.send(ctx, "latency", found)
	})
}

func (s *Server) scrape(ctx context.Context) ([]latencies, error) {
	families, err := s.node.Metrics(ctx)
	if err != nil {
		return nil, err
	}
	return readLatencies(families[durations]), nil
}

// readLatencies reads the histograms of the models, in order of their names.
func readLatencies(family *dto.MetricFamily) []latencies {
	all := []latencies{}
	for _, m := range family.GetMetric() {
		name := ""
		for _, label := range m.GetLabel() {
			if label.GetName() == "model" {
				name = label.GetValue()
			}
		}
		all = append(all, latenciesOf(printable.Text(name), client.HistogramOf(m)))
	}
	slices.SortFunc(all, func(a, b latencies) int { return strings.Compare(a.Model, b.Model) })
	return all
}

func latenciesOf(name string, h *client.Histogram) latencies {
	l := latencies{Model: name, Count: h.Count, Bars: []bar{}}
	l.P50, _ = h.Quantile(.5)
	l.P99, _ = h.Quantile(.99)
	for i, n := range h.Counts {
		l.Bars = append(l.Bars, bar{h.Bounds[i], n})
	}
	l.Bars = append(l.Bars, bar{-1, h.Above()})
	empty := func(b bar) bool { return b.Count == 0 }
	if first := slices.IndexFunc(l.Bars, func(b bar) bool { return !empty(b) }); first > 0 {
		l.Bars = l.Bars[first:]
	}
	for len(l.Bars) > 0 && empty(l.Bars[len(l.Bars)-1]) {
		l.Bars = l.Bars[:len(l.Bars)-1]
	}
	for len(l.Bars) > maxBars {
		l.Bars = halved(l.Bars)
	}
	return l
}

// halved joins each two neighbours.
func halved(bars []bar) []bar {
	var out []bar
	for pair := range slices.Chunk(bars, 2) {
		last := pair[len(pair)-1]
		if len(pair) == 2 {
			last.Count += pair[0].Count
		}
		out = append(out, last)
	}
	return out
}
