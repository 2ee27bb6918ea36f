package loadgen

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/version"
)

// Names of the log files, which other programs read.
const (
	SummaryFile  = "mlperf_log_summary.txt"
	DetailFile   = "mlperf_log_detail.txt"
	AccuracyFile = "mlperf_log_accuracy.json"
)

// Answer is what was answered to one sample.
type Answer struct {
	Sample int
	Data   []byte
}

// Log is a run as the log files tell it. Verdict is nil in mode accuracy.
type Log struct {
	Settings Settings
	System   string // under test
	Began    time.Time
	Verdict  *Verdict
	Answers  []Answer
}

// Write writes the log files into a folder, which is made where it is missing.
func (l *Log) Write(dir string) error {
	if err := durable.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, write := range map[string]func(io.Writer) error{SummaryFile: l.summary, DetailFile: l.detail, AccuracyFile: l.accuracy} {
		var text strings.Builder
		if err := write(&text); err != nil {
			return err
		}
		if err := durable.WriteFile(filepath.Join(dir, name), []byte(text.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func yes(b bool) string {
	if b {
		return "Yes"
	}
	return "NO"
}

func valid(b bool) string {
	if b {
		return "VALID"
	}
	return "INVALID"
}

// summary is what people read, in the lines that other programs look for.
func (l *Log) summary(w io.Writer) error {
	v := l.Verdict
	if v == nil {
		_, err := fmt.Fprintf(w, "\nNo warnings encountered during test.\n\nNo errors encountered during test.\n")
		return err
	}
	rule := strings.Repeat("=", 48)
	fmt.Fprintf(w, "%s\nMLPerf Results Summary\n%s\nSUT name : %s\nScenario : %s\nMode     : %s\n", rule, rule, l.System, v.Scenario.official(), v.Mode.official())
	switch v.Scenario {
	case Server:
		fmt.Fprintf(w, "Completed samples per second    : %.2f\n", v.Rate)
	case Offline:
		fmt.Fprintf(w, "Samples per second: %g\n", digits(v.Rate))
	default:
		fmt.Fprintf(w, "%.1fth percentile latency (ns) : %d\n", 100*v.Percentile, v.Latency)
	}
	fmt.Fprintf(w, "Result is : %s\n", valid(v.Valid))
	if v.Scenario == Server {
		fmt.Fprintf(w, "  Performance constraints satisfied : %s\n", yes(v.PerformanceMet))
	}
	fmt.Fprintf(w, "  Min duration satisfied : %s\n  Min queries satisfied : %s\n  Early stopping satisfied: %s\n", yes(v.DurationMet), yes(v.QueriesMet), yes(v.Early.Met))
	if len(v.Advice) > 0 {
		fmt.Fprintln(w, "Recommendations:")
	}
	for _, a := range v.Advice {
		fmt.Fprintf(w, " * %s\n", a)
	}
	if v.Scenario != Offline {
		fmt.Fprintf(w, "Early Stopping Result:\n * %s\n", v.early())
	}
	fmt.Fprintf(w, "\n%s\nAdditional Stats\n%s\n", rule, rule)
	switch v.Scenario {
	case SingleStream:
		fmt.Fprintf(w, "QPS w/ loadgen overhead         : %.2f\nQPS w/o loadgen overhead        : %.2f\n\n", v.Rate, 1/v.Mean.Seconds())
	case MultiStream:
		fmt.Fprintln(w, "Per-query latency:")
	case Server:
		fmt.Fprintf(w, "Scheduled samples per second : %.2f\n", v.Scheduled)
	}
	fmt.Fprintf(w, "Min latency (ns)                : %d\nMax latency (ns)                : %d\nMean latency (ns)               : %d\n", v.Least, v.Most, v.Mean)
	for _, p := range v.Percentiles {
		fmt.Fprintf(w, "%.2f percentile latency (ns)   : %d\n", 100*p.Share, p.Latency)
	}
	fmt.Fprintf(w, "\n%s\nTest Parameters Used\n%s\n", rule, rule)
	for _, p := range l.parameters() {
		fmt.Fprintf(w, "%s : %v\n", p.summary, p.value)
	}
	_, err := fmt.Fprintf(w, "\nNo warnings encountered during test.\n\n%s\n", l.errors())
	return err
}

func (l *Log) errors() string {
	if l.Verdict.Failed == 0 {
		return "No errors encountered during test."
	}
	return fmt.Sprintf("%d ERRORS encountered. See detailed log.", l.Verdict.Failed)
}

// early tells what early stopping found.
func (v *Verdict) early() string {
	switch {
	case v.Scenario == Server && v.Early.Met:
		return "Run successful."
	case !v.Early.Met:
		return fmt.Sprintf("Processed %d queries; at least %d more are needed.", v.Queries, v.Early.Needed)
	}
	return fmt.Sprintf("Processed %d queries, of which the %d slowest do not count.\n * Early stopping %.1fth percentile estimate: %d", v.Queries, v.Early.Discarded, 100*v.Percentile, v.Early.Estimate)
}

// digits keeps six that count, as log files have them.
func digits(f float64) float64 {
	var out float64
	fmt.Sscanf(fmt.Sprintf("%.6g", f), "%g", &out)
	return out
}

type parameter struct {
	summary, detail string
	value           any
}

func (l *Log) parameters() []parameter {
	s := l.Settings
	asked := 1
	if s.Scenario == Server {
		asked = 0 // no bound
	}
	qps, latency := s.QPS, time.Duration(0)
	if s.Scenario == Server {
		latency = s.Latency
	}
	return []parameter{
		{"samples_per_query", "samples_per_query", s.Samples},
		{"target_qps", "target_qps", qps},
		{"target_latency (ns)", "target_latency_ns", int64(latency)},
		{"max_async_queries", "max_async_queries", asked},
		{"min_duration (ms)", "min_duration_ms", s.MinDuration.Milliseconds()},
		{"max_duration (ms)", "max_duration_ms", 0},
		{"min_query_count", "min_query_count", s.MinQueries},
		{"max_query_count", "max_query_count", 0},
		{"sample_index_rng_seed", "sample_index_rng_seed", s.Seed},
		{"schedule_rng_seed", "schedule_rng_seed", s.Seed},
		{"performance_sample_count", "performance_sample_count", s.Library},
		{"accuracy_sample_count", "accuracy_sample_count", s.Library},
	}
}

// detail is what programs read: a line of JSON for each fact.
func (l *Log) detail(w io.Writer) error {
	var failed error
	write := func(key string, value any) {
		line, err := json.Marshal(struct {
			Key       string         `json:"key"`
			Value     any            `json:"value"`
			Millis    float64        `json:"time_ms"`
			Namespace string         `json:"namespace"`
			Event     string         `json:"event_type"`
			Metadata  map[string]any `json:"metadata"`
		}{key, value, float64(time.Since(l.Began).Microseconds()) / 1000, "mlperf::logging", "POINT_IN_TIME",
			map[string]any{"is_error": key == "error_runtime", "is_warning": false}})
		if err == nil {
			_, err = fmt.Fprintf(w, ":::MLLOG %s\n", line)
		}
		if failed == nil {
			failed = err
		}
	}
	s, v := l.Settings, l.Verdict
	write("loadgen_version", "oscine "+version.Version)
	write("test_datetime", l.Began.UTC().Format(time.RFC3339))
	write("sut_name", l.System)
	write("requested_scenario", s.Scenario.official())
	write("requested_test_mode", s.Mode.official())
	write("effective_scenario", s.Scenario.official())
	write("effective_test_mode", s.Mode.official())
	for _, p := range l.parameters() {
		write("effective_"+p.detail, p.value)
	}
	write("effective_target_latency_percentile", s.Percentile)
	if v == nil {
		write("num_errors", 0)
		return failed
	}
	for range v.Failed {
		write("error_runtime", "a query was not answered")
	}
	write("result_validity", valid(v.Valid))
	if v.Scenario == Server {
		write("result_perf_constraints_met", v.PerformanceMet)
	}
	write("result_min_duration_met", v.DurationMet)
	write("result_min_queries_met", v.QueriesMet)
	write("early_stopping_met", v.Early.Met)
	write("result_query_count", v.Queries)
	switch v.Scenario {
	case SingleStream:
		write("result_qps_with_loadgen_overhead", digits(v.Rate))
		write("result_qps_without_loadgen_overhead", digits(1/v.Mean.Seconds()))
		write("early_stopping_latency_ss", v.Early.Estimate)
	case MultiStream:
		write("early_stopping_latency_ms", v.Early.Estimate)
		write("result_min_query_latency_ns", v.Least)
		write("result_max_query_latency_ns", v.Most)
		write("result_mean_query_latency_ns", v.Mean)
		for _, p := range v.Percentiles {
			write(fmt.Sprintf("result_%.2f_percentile_per_query_latency_ns", 100*p.Share), p.Latency)
		}
	case Server:
		write("result_overlatency_query_count", v.OverLatency)
		write("result_scheduled_samples_per_sec", digits(v.Scheduled))
		write("result_completed_samples_per_sec", digits(v.Rate))
	case Offline:
		write("result_samples_per_second", digits(v.Rate))
	}
	write("result_min_latency_ns", v.samples.least)
	write("result_max_latency_ns", v.samples.most)
	write("result_mean_latency_ns", v.samples.mean)
	for _, p := range v.samples.percentiles {
		write(fmt.Sprintf("result_%.2f_percentile_latency_ns", 100*p.Share), p.Latency)
	}
	write("num_errors", v.Failed)
	return failed
}

// accuracy has every answer of mode accuracy, in hexadecimal.
func (l *Log) accuracy(w io.Writer) error {
	fmt.Fprint(w, "[")
	for i, a := range l.Answers {
		comma := ","
		if i == 0 {
			comma = ""
		}
		fmt.Fprintf(w, "%s\n{ \"seq_id\" : %d, \"qsl_idx\" : %d, \"data\" : \"%s\" }", comma, i, a.Sample, strings.ToUpper(hex.EncodeToString(a.Data)))
	}
	_, err := fmt.Fprint(w, "\n]\n")
	return err
}
