package sim

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"oscine.dev/oscine/internal/place"
)

// Workload is a named pod list.
type Workload struct {
	Name string
	Pods []Pod
}

// Matrix is every workload under every policy, each for every seed.
type Matrix struct {
	Nodes     []place.FleetNode
	Workloads []Workload
	Policies  []string
	Seeds     []int64
	Tune      float64 // as in Experiment
	ScanAll   bool    // as in Experiment
}

// Result is one workload under one policy.
type Result struct {
	Workload string
	Policy   string
	Curves   []*Curve // by seed
}

// Run replays everything, as many seeds at once as there are CPUs, and returns
// the results in the order of workloads, then policies. progress, where not
// nil, is called with the part done, never concurrently.
func (m *Matrix) Run(ctx context.Context, progress func(done float64)) ([]Result, error) {
	for _, p := range m.Policies {
		if err := CheckPolicy(p); err != nil {
			return nil, err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	tracker := newTracker(len(m.Workloads)*len(m.Policies)*len(m.Seeds), progress)
	var results []Result
	for _, w := range m.Workloads {
		for _, policy := range m.Policies {
			r := Result{Workload: w.Name, Policy: policy, Curves: make([]*Curve, len(m.Seeds))}
			results = append(results, r)
			for i, seed := range m.Seeds {
				part := tracker.part()
				group.Go(func() error {
					e := Experiment{Nodes: m.Nodes, Pods: w.Pods, Policy: policy, Tune: m.Tune, ScanAll: m.ScanAll}
					curve, err := e.Run(ctx, seed, part)
					if err != nil {
						return fmt.Errorf("workload %s: %w", w.Name, err)
					}
					r.Curves[i] = curve
					return nil
				})
			}
		}
	}
	return results, group.Wait()
}

// tracker sums the progress of many runs.
type tracker struct {
	mu     sync.Mutex
	runs   int
	sum    float64
	report func(float64)
}

func newTracker(runs int, report func(float64)) *tracker { return &tracker{runs: runs, report: report} }

func (t *tracker) part() func(float64) {
	if t.report == nil {
		return nil
	}
	var before float64
	return func(done float64) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.sum += done - before
		before = done
		t.report(t.sum / float64(t.runs))
	}
}

// ParseSeeds reads "42..51", "42,45" or "42".
func ParseSeeds(text string) ([]int64, error) {
	const most = 1000
	var seeds []int64
	for _, part := range strings.Split(text, ",") {
		from, to, isRange := strings.Cut(part, "..")
		if !isRange {
			to = from
		}
		a, errA := strconv.ParseInt(strings.TrimSpace(from), 10, 64)
		b, errB := strconv.ParseInt(strings.TrimSpace(to), 10, 64)
		if errA != nil || errB != nil || a > b || b-a >= most || len(seeds)+int(b-a) >= most {
			return nil, fmt.Errorf("seeds are a range such as 42..51 or a list such as 42,43, at most %d; got %q", most, text)
		}
		for s := a; s <= b; s++ {
			seeds = append(seeds, s)
		}
	}
	return seeds, nil
}

// meanAndDeviation over the seeds, of one column; the deviation is that of a sample.
func meanAndDeviation(curves []*Curve, value func(*Curve) float64) (mean, deviation float64) {
	n := float64(len(curves))
	for _, c := range curves {
		mean += value(c) / n
	}
	for _, c := range curves {
		d := value(c) - mean
		deviation += d * d
	}
	if n > 1 {
		return mean, math.Sqrt(deviation / (n - 1))
	}
	return mean, 0
}
