package serving

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"oscine.dev/oscine/internal/bench/latency"
	"oscine.dev/oscine/internal/bench/loadgen"
)

// Report is a run with what was run.
type Report struct {
	Model    string   `json:"model"`
	Platform string   `json:"platform,omitempty"`
	Server   string   `json:"server"`
	Protocol string   `json:"protocol"`
	Encoding string   `json:"encoding"`
	Inputs   []string `json:"inputs"` // NAME TYPE[shape], or the file's name
	Bytes    int      `json:"requestBytes"`
	Batch    int      `json:"batch,omitempty"` // rows of a request, where they were chosen
	Clients  int      `json:"clients"`
	Rate     float64  `json:"rate,omitempty"` // of the open loop, in requests a second

	Measured
	// Verdict is that of a scenario of MLPerf Inference, nil for a plain run or one
	// that was interrupted.
	Verdict *loadgen.Verdict `json:"verdict,omitempty"`
}

// title says in a line what was run.
func (r *Report) title() string {
	loop := fmt.Sprintf("closed loop, %s", count(r.Clients, "client"))
	if r.Rate > 0 {
		loop = fmt.Sprintf("open loop, %g requests/s, at most %d at a time", r.Rate, r.Clients)
	}
	if r.Verdict != nil {
		loop = "scenario " + string(r.Verdict.Scenario)
	}
	protocol := map[string]string{HTTP: "HTTP", GRPC: "gRPC"}[r.Protocol]
	if r.Protocol == HTTP {
		protocol += " " + map[string]string{Binary: "binary", JSON: "JSON"}[r.Encoding]
	}
	ended := ""
	if r.Interrupted {
		ended = ", interrupted"
	}
	return fmt.Sprintf("%s at %s, %s, %s, %v%s", r.Model, r.Server, protocol, loop, r.Elapsed.Round(time.Millisecond), ended)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// facts are the lines of the report as names and values.
func (r *Report) facts() [][2]string {
	throughput := fmt.Sprintf("%.1f requests/s", r.Throughput)
	if r.Batch > 1 {
		throughput += fmt.Sprintf(", %.1f rows/s", r.Throughput*float64(r.Batch))
	}
	facts := [][2]string{
		{"inputs", fmt.Sprintf("%s; %d bytes a request", strings.Join(r.Inputs, ", "), r.Bytes)},
		{"requests", fmt.Sprintf("%d answered, %d failed", r.Answered, r.Failed)},
		{"throughput", throughput},
	}
	if r.Latency.Count() > 0 {
		facts = append(facts, [2]string{"latency", quantiles(r.Latency)})
	}
	if r.SendDelay != nil && r.SendDelay.Count() > 0 {
		facts = append(facts, [2]string{"sent late", quantiles(r.SendDelay)})
	}
	if n := r.Answered + r.Failed; n > 0 && r.Elapsed > 0 {
		facts = append(facts, [2]string{"client CPU", fmt.Sprintf("%.2f CPUs, %s a request", r.ClientCPU.Seconds()/r.Elapsed.Seconds(), latency.Short(r.ClientCPU/time.Duration(n)))})
	}
	for _, e := range r.Errors {
		text := fmt.Sprintf("%d × %s", e.Count, e.Reason)
		if e.Example != "" {
			text += ": " + e.Example
		}
		facts = append(facts, [2]string{"failed", text})
	}
	return append(r.verdict(), facts...)
}

// verdict are the lines about a scenario.
func (r *Report) verdict() [][2]string {
	v := r.Verdict
	if v == nil {
		return nil
	}
	word := map[bool]string{true: "yes", false: "no"}
	result := map[bool]string{true: "VALID", false: "INVALID"}[v.Valid]
	facts := [][2]string{
		{"scenario", fmt.Sprintf("%s: %s", v.Scenario, result)},
		{"rules", fmt.Sprintf("latency kept: %s, duration: %s, queries: %s, early stopping: %s", word[v.PerformanceMet], word[v.DurationMet], word[v.QueriesMet], word[v.Early.Met])},
	}
	switch v.Scenario {
	case loadgen.SingleStream, loadgen.MultiStream:
		text := fmt.Sprintf("p%g of %d queries %s", 100*v.Percentile, v.Queries, latency.Short(v.Latency))
		if v.Early.Met {
			text += fmt.Sprintf(", with 99 %% confidence %s", latency.Short(v.Early.Estimate))
		}
		facts = append(facts, [2]string{"result", text})
	case loadgen.Server:
		facts = append(facts, [2]string{"result", fmt.Sprintf("%.1f queries/s scheduled, %.1f completed, %d of %d over the latency, p%g %s", v.Scheduled, v.Rate, v.OverLatency, v.Queries, 100*v.Percentile, latency.Short(v.Latency))})
	case loadgen.Offline:
		facts = append(facts, [2]string{"result", fmt.Sprintf("%.1f samples/s", v.Rate)})
	}
	if v.Peak > 0 {
		facts = append(facts, [2]string{"peak", fmt.Sprintf("%.4g queries/s", v.Peak)})
	}
	for _, a := range v.Advice {
		facts = append(facts, [2]string{"advice", a})
	}
	return facts
}

func quantiles(h *latency.Histogram) string {
	return fmt.Sprintf("p50 %s, p90 %s, p99 %s, p99.9 %s, max %s, mean %s", latency.Short(h.Quantile(.5)), latency.Short(h.Quantile(.9)),
		latency.Short(h.Quantile(.99)), latency.Short(h.Quantile(.999)), latency.Short(h.Max()), latency.Short(h.Mean()))
}

// WriteText prints the report with a histogram of the latencies.
func (r *Report) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "%s\n\n", r.title())
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range r.facts() {
		fmt.Fprintf(t, "%s\t%s\n", f[0], f[1])
	}
	if err := t.Flush(); err != nil || r.Latency.Count() == 0 {
		return err
	}
	fmt.Fprintln(w)
	return r.Latency.WriteBars(w)
}
