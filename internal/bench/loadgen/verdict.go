package loadgen

import (
	"fmt"
	"slices"
	"time"
)

// Query is one query that was answered.
type Query struct {
	Issued  time.Duration   `json:"issuedNs"`  // since the first; of the server when it was due
	Samples []time.Duration `json:"samplesNs"` // the latency of each sample, from Issued
	Failed  bool            `json:"failed"`
}

// latency of a query is that of its slowest sample.
func (q Query) latency() time.Duration { return slices.Max(q.Samples) }

// Percentile is the latency that a share of queries, or of samples, keeps.
type Percentile struct {
	Share   float64       `json:"share"`
	Latency time.Duration `json:"latencyNs"`
}

// Early is what early stopping says.
type Early struct {
	Met       bool          `json:"met"`
	Needed    int           `json:"needed"`               // how many more queries it needs at least
	Discarded int           `json:"discarded,omitempty"`  // of the streams: the slowest queries that do not count
	Estimate  time.Duration `json:"estimateNs,omitempty"` // of the streams: the latency of the percentile, with confidence
}

// Verdict is the result of a run.
type Verdict struct {
	Scenario Scenario `json:"scenario"`
	Mode     Mode     `json:"mode"`
	Valid    bool     `json:"valid"`

	PerformanceMet bool  `json:"performanceConstraintsMet"` // the server keeps its latency; true for other scenarios
	DurationMet    bool  `json:"minDurationMet"`
	QueriesMet     bool  `json:"minQueriesMet"`
	Early          Early `json:"earlyStopping"`
	Failed         int   `json:"failedQueries"` // each makes the run invalid

	Queries     int           `json:"queries"`
	OverLatency int           `json:"overLatencyQueries"` // of the server
	Percentile  float64       `json:"percentile"`
	Latency     time.Duration `json:"percentileLatencyNs"` // of the scenario's percentile
	Rate        float64       `json:"rate"`                // samples a second: of the streams those issued, of the server up to the answer to the last query issued
	Scheduled   float64       `json:"scheduledRate"`       // of the server
	Least       time.Duration `json:"minLatencyNs"`        // of queries
	Most        time.Duration `json:"maxLatencyNs"`
	Mean        time.Duration `json:"meanLatencyNs"`
	Percentiles []Percentile  `json:"percentiles"` // of queries; offline of samples
	Peak        float64       `json:"peakRate,omitempty"`
	Advice      []string      `json:"advice,omitempty"`

	samples sampleLatencies
}

// sampleLatencies are the latencies of single samples where a query has several.
type sampleLatencies struct {
	least, most, mean time.Duration
	percentiles       []Percentile
}

// shares are those of which log files tell the latency.
func shares() []float64 { return []float64{.5, .9, .95, .97, .99, .999} }

// at is the value at a share of sorted latencies.
func at(sorted []time.Duration, share float64) time.Duration {
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)]
}

func percentiles(sorted []time.Duration) []Percentile {
	var out []Percentile
	for _, s := range shares() {
		out = append(out, Percentile{s, at(sorted, s)})
	}
	return out
}

func mean(all []time.Duration) time.Duration {
	var sum float64
	for _, d := range all {
		sum += float64(d)
	}
	return time.Duration(sum / float64(len(all)))
}

// Judge decides about a run. It needs one query at least.
func Judge(s Settings, queries []Query) (*Verdict, error) {
	v := &Verdict{Scenario: s.Scenario, Mode: s.Mode, Queries: len(queries), Percentile: s.Percentile}
	if len(queries) == 0 {
		return nil, fmt.Errorf("no query was answered: there is nothing to judge")
	}
	var each, samples []time.Duration
	var lastIssued, lastDone, end time.Duration
	for _, q := range queries {
		if q.Failed || len(q.Samples) == 0 {
			v.Failed++
			continue
		}
		each, samples = append(each, q.latency()), append(samples, q.Samples...)
		end = max(end, q.Issued+q.latency())
		if q.Issued >= lastIssued {
			lastIssued, lastDone = q.Issued, q.Issued+q.latency()
		}
	}
	if len(each) == 0 {
		return nil, fmt.Errorf("all %d queries failed: there is nothing to judge", len(queries))
	}
	slices.Sort(each)
	slices.Sort(samples)
	of := each
	if s.Scenario == Offline {
		of = samples
	}
	v.Least, v.Most, v.Mean, v.Percentiles = of[0], of[len(of)-1], mean(of), percentiles(of)
	v.samples = sampleLatencies{samples[0], samples[len(samples)-1], mean(samples), percentiles(samples)}
	v.Latency = at(of, s.Percentile)

	v.PerformanceMet, v.Early.Met = true, true
	v.DurationMet, v.QueriesMet = end >= s.MinDuration, len(queries) >= s.MinQueries
	switch s.Scenario {
	case SingleStream, MultiStream:
		v.Rate = rate((len(each)-1)*s.Samples, lastIssued)
		v.Early = stream(each, s.Percentile)
	case Server:
		v.Rate, v.Scheduled = rate(len(each)-1, lastDone), rate(len(each)-1, lastIssued)
		for _, d := range each {
			if d > s.Latency {
				v.OverLatency++
			}
		}
		v.PerformanceMet = v.Latency <= s.Latency
		v.Early = Early{Met: Proven(len(each), v.OverLatency, s.Percentile)}
		if !v.Early.Met {
			v.Early.Needed = QueriesNeeded(v.OverLatency, s.Percentile) - len(each)
		}
	case Offline:
		v.Rate = rate(len(samples), end)
	}
	v.Valid = v.PerformanceMet && v.DurationMet && v.QueriesMet && v.Early.Met && v.Failed == 0
	v.advise(s)
	return v, nil
}

func rate(n int, in time.Duration) float64 {
	if in <= 0 {
		return 0
	}
	return float64(n) / in.Seconds()
}

// stream is early stopping for queries that follow one another: the latency of
// the fastest one that too few queries exceed by chance.
func stream(sorted []time.Duration, share float64) Early {
	n := len(sorted)
	slow, ok := Slow(n, share)
	if !ok || slow < 1 {
		return Early{Needed: QueriesNeeded(1, share) - n}
	}
	return Early{Met: true, Discarded: slow - 1, Estimate: sorted[n-slow]}
}

// advise says what would make an invalid run valid.
func (v *Verdict) advise(s Settings) {
	add := func(format string, args ...any) { v.Advice = append(v.Advice, fmt.Sprintf(format, args...)) }
	if v.Failed > 0 {
		add("%d queries failed: a run counts only when all are answered", v.Failed)
	}
	if !v.PerformanceMet {
		add("lower the rate: %g %% of the queries have to be answered within %v", 100*s.Percentile, s.Latency)
	}
	if !v.DurationMet && s.Scenario == Offline {
		add("expect a higher rate, so that the query has more samples and lasts %v", s.MinDuration)
	} else if !v.DurationMet {
		add("run for %v", s.MinDuration)
	}
	if !v.QueriesMet {
		add("run at least %d queries", s.MinQueries)
	}
	if !v.Early.Met && v.PerformanceMet {
		add("run at least %d more queries, for a confidence of 99 %%", v.Early.Needed)
	}
}
