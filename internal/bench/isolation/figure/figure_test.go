package figure

import (
	"math"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/bench/latency"
)

// worker makes a figure whose p99 is the given number of microseconds, beside
// a load that did so many units in ten seconds.
func worker(name string, cpus, p99 int, units uint64) Figure {
	f := Figure{Name: name, CPUs: cpus, Worker: &latency.WorkerReport{CPUTime: 2 * time.Second}}
	for range 100 {
		f.Worker.Histogram.Record(time.Duration(p99) * time.Microsecond)
	}
	if units > 0 {
		f.Load = &latency.LoadReport{Units: units, Elapsed: 10 * time.Second}
	}
	return f
}

func requests(name string, served, missed uint64) Figure {
	return Figure{Name: name, CPUs: 1, Requests: &latency.RequestReport{Kinds: []latency.KindReport{
		{Name: "tight", Served: served, Missed: missed}, {Name: "loose", Served: 100},
	}}}
}

func TestJudgeTakesTheWorst(t *testing.T) {
	got := Judge([]Figure{
		worker(Unloaded, 1, 10, 0), worker(Default, 1, 5000, 800),
		worker(Interactive+", unloaded", 1, 10, 0), worker(Interactive, 1, 12, 780),
		worker(Interactive+", unloaded", 2, 20, 0), worker(Interactive, 2, 28, 1700), worker(Default, 2, 6000, 1800),
		worker(Realtime+", unloaded", 2, 10, 0), worker(Realtime, 2, 11, 1000),
		requests(Idle, 1000, 200), requests(Serving, 1000, 30),
	})
	for _, c := range []struct {
		name string
		got  *float64
		want float64
	}{
		{"interactive_p99", got.InteractiveP99, 1.4}, {"realtime_p99", got.RealtimeP99, 1.1}, {"default_p99", got.DefaultP99, 500},
		{"batch_throughput", got.BatchThroughput, 1700. / 1800}, {"deadline_miss", got.DeadlineMiss, .15},
	} {
		if c.got == nil || math.Abs(*c.got-c.want) > .02*c.want {
			t.Errorf("%s: got %v, want %v", c.name, c.got, c.want)
		}
	}
	if got.ServingP99 != nil {
		t.Errorf("what was not measured has the ratio %v", *got.ServingP99)
	}
}

func TestTablesHaveARowForEachConfiguration(t *testing.T) {
	r := Report{Figures: []Figure{worker(Unloaded, 1, 10, 0), worker(Default, 1, 5000, 800), worker(Interactive, 1, 12, 780), requests(Idle, 1000, 247)}}
	r.Ratios = Judge(r.Figures)
	var text strings.Builder
	if err := r.WriteTables(&text); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteRatios(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"oscine interactive", "12.0/12.0/12.0", "97.5 %", "24.7 %", "≤ 1.5", "not measured"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the text lacks %q:\n%s", want, &text)
		}
	}
}
