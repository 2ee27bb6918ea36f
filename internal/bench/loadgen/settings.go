package loadgen

import (
	"fmt"
	"math"
	"time"
)

// Scenario is how queries arrive.
type Scenario string

// The scenarios of MLPerf Inference.
const (
	SingleStream Scenario = "single-stream" // one sample after the other
	MultiStream  Scenario = "multi-stream"  // one query of several samples after the other
	Server       Scenario = "server"        // one sample each, at the times of a Poisson process
	Offline      Scenario = "offline"       // all samples in one query
)

// Scenarios lists them.
func Scenarios() []Scenario { return []Scenario{SingleStream, MultiStream, Server, Offline} }

// official is a scenario's name in log files.
func (s Scenario) official() string {
	return map[Scenario]string{SingleStream: "SingleStream", MultiStream: "MultiStream", Server: "Server", Offline: "Offline"}[s]
}

// Mode is what a run is for.
type Mode string

// The modes.
const (
	Performance Mode = "performance"
	Accuracy    Mode = "accuracy"  // every sample once, with its answers logged
	FindPeak    Mode = "find-peak" // the highest rate of the server scenario that keeps its latency
)

// Modes lists them.
func Modes() []Mode { return []Mode{Performance, Accuracy, FindPeak} }

func (m Mode) official() string {
	return map[Mode]string{Performance: "PerformanceOnly", Accuracy: "AccuracyOnly", FindPeak: "FindPeakPerformance"}[m]
}

// Settings are those of one run.
type Settings struct {
	Scenario Scenario
	Mode     Mode
	// QPS is the rate of queries of the server scenario, and of the offline one
	// the rate of samples that is expected, from which its size follows.
	QPS         float64
	Latency     time.Duration // that Percentile of the server's queries keep
	Percentile  float64       // 0: 0.9 for single-stream, else 0.99
	Samples     int           // of a multi-stream query; 0: 8
	MinDuration time.Duration
	MinQueries  int // of samples, offline; 0: 100
	Library     int // how many different samples there are
	Seed        uint64
}

// WithDefaults returns the settings with what is 0 filled in.
func (s Settings) WithDefaults() Settings {
	if s.Mode == "" {
		s.Mode = Performance
	}
	if s.Percentile == 0 {
		s.Percentile = .99
		if s.Scenario == SingleStream {
			s.Percentile = .9
		}
	}
	if s.Samples == 0 || s.Scenario != MultiStream {
		s.Samples = 1
		if s.Scenario == MultiStream {
			s.Samples = 8
		}
	}
	if s.MinQueries == 0 {
		s.MinQueries = 100
	}
	if s.Scenario == Offline {
		const margin = 1.1 // more than the expected rate answers in the time
		s.Samples = max(s.MinQueries, int(math.Ceil(s.QPS*margin*s.MinDuration.Seconds())))
		s.MinQueries = 1
	}
	return s
}

// maxSamples bounds a query.
const maxSamples = 10_000_000

// Check says what is wrong with settings, whose defaults are filled in.
func (s Settings) Check() error {
	switch {
	case s.Scenario.official() == "":
		return fmt.Errorf("there is no scenario %q: choose single-stream, multi-stream, server or offline", s.Scenario)
	case s.Mode.official() == "":
		return fmt.Errorf("there is no mode %q: choose performance, accuracy or find-peak", s.Mode)
	case s.Mode == FindPeak && s.Scenario != Server:
		return fmt.Errorf("mode find-peak searches the rate of scenario server, not of %s", s.Scenario)
	case s.Percentile <= 0 || s.Percentile >= 1 || math.IsNaN(s.Percentile):
		return fmt.Errorf("percentile %g: it lies between 0 and 1, such as 0.99", s.Percentile)
	case s.Samples < 1 || s.Samples > maxSamples:
		return fmt.Errorf("%d samples a query: from 1 to %d can be sent", s.Samples, maxSamples)
	case (s.Scenario == Server || s.Scenario == Offline) && !(s.QPS > 0 && s.QPS <= 10_000_000):
		return fmt.Errorf("scenario %s needs a rate above 0, and at most 10000000, a second", s.Scenario)
	case s.Scenario == Server && s.Latency <= 0:
		return fmt.Errorf("scenario server needs the latency that %g %% of its queries keep", 100*s.Percentile)
	case s.MinDuration < 0 || s.MinQueries < 1 || s.Library < 1:
		return fmt.Errorf("a run has a duration, queries and samples: not %v, %d and %d", s.MinDuration, s.MinQueries, s.Library)
	}
	return nil
}
