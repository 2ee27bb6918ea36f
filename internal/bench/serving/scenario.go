package serving

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"oscine.dev/oscine/internal/bench/loadgen"
)

// RunScenario runs a scenario of MLPerf's load generator and judges it; send
// sends one sample. Samples are those of the library, in random order. Of the
// options it takes the warm-up, the timeout, the progress and the clients: how
// many samples of a query are at work at a time, or queries of the server.
// A run that ctx ended is not judged: then the verdict is nil.
func RunScenario(ctx context.Context, send Send, s loadgen.Settings, o Options) (*Measured, *loadgen.Verdict, error) {
	if err := s.Check(); err != nil {
		return nil, nil, err
	}
	o.Seed, o.Rate, o.Duration, o.Count, o.enough = s.Seed, 0, 0, 0, nil
	index := sampleIndex(s.Library, s.Seed)
	t := &trace{samples: map[uint64][]time.Duration{}}
	o.observe = t.add
	number := func(ctx context.Context, n uint64) error { return send(ctx, index(n)) }
	switch s.Scenario {
	case loadgen.SingleStream, loadgen.MultiStream:
		o.Clients = 1
		o.enough = func(elapsed time.Duration, sent uint64) bool {
			return elapsed >= s.MinDuration && sent >= uint64(s.MinQueries)
		}
		if s.Samples > 1 {
			number = func(ctx context.Context, n uint64) error { return together(ctx, send, index, n, s.Samples, t) }
		}
	case loadgen.Server:
		o.Rate, o.Count = s.QPS, arrivalsOf(s)
	case loadgen.Offline:
		o.Count = s.Samples
	}
	m, err := Run(ctx, number, o)
	if err != nil {
		return nil, nil, err
	}
	if m.Interrupted {
		return m, nil, nil
	}
	v, err := loadgen.Judge(s, t.queries(s))
	return m, v, err
}

// arrivalsOf counts the queries of the server scenario: until both the duration,
// which begins with the first, and their number are reached.
func arrivalsOf(s loadgen.Settings) int {
	next, n := Poisson(s.QPS, s.Seed), 1
	for first := next(); next()-first < s.MinDuration || n+1 < s.MinQueries; {
		n++
	}
	return n + 1
}

// sampleIndex chooses a sample of the library for each number.
func sampleIndex(library int, seed uint64) func(uint64) uint64 {
	return func(n uint64) uint64 { return mix(seed+n) % uint64(library) }
}

// mix is the output function of SplitMix64 (Steele, Lea, Flood 2014), by which
// neighbours look random.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// together sends the samples of one query at the same time.
func together(ctx context.Context, send Send, index func(uint64) uint64, query uint64, samples int, t *trace) error {
	latencies, failures := make([]time.Duration, samples), make([]error, samples)
	begin := time.Now()
	var all sync.WaitGroup
	for i := range samples {
		all.Go(func() {
			failures[i] = send(ctx, index(query*uint64(samples)+uint64(i)))
			latencies[i] = time.Since(begin)
		})
	}
	all.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.samples[query] = latencies
	return errors.Join(failures...)
}

// trace keeps what became of each query. It is safe for concurrent use.
type trace struct {
	mu      sync.Mutex
	done    []observed
	samples map[uint64][]time.Duration // of queries with several
}

// observed is a request that has ended.
type observed struct {
	number     uint64
	due, ended time.Duration // since the beginning
	failed     bool
}

func (t *trace) add(o observed) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done = append(t.done, o)
}

// queries are those of the run, in the order in which they were due.
func (t *trace) queries(s loadgen.Settings) []loadgen.Query {
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.SortFunc(t.done, func(a, b observed) int { return int(a.number) - int(b.number) })
	if s.Scenario == loadgen.Offline {
		var q loadgen.Query
		for _, o := range t.done {
			q.Samples, q.Failed = append(q.Samples, o.ended), q.Failed || o.failed
		}
		return []loadgen.Query{q}
	}
	queries := make([]loadgen.Query, len(t.done))
	for i, o := range t.done {
		q := loadgen.Query{Issued: o.due - t.done[0].due, Samples: t.samples[o.number], Failed: o.failed}
		if q.Samples == nil {
			q.Samples = []time.Duration{o.ended - o.due}
		}
		queries[i] = q
	}
	return queries
}

// RunAccuracy sends each request once, in order, and returns what was answered:
// the bytes of all outputs, one after the other. It ends at the first failure.
func RunAccuracy(ctx context.Context, requests []Prepared, o Options) (*Measured, []loadgen.Answer, error) {
	answers := make([]loadgen.Answer, len(requests))
	var mu sync.Mutex
	var failed error
	o.Rate, o.Duration, o.Count, o.Warmup = 0, 0, len(requests), 0
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	m, err := Run(ctx, func(ctx context.Context, n uint64) error {
		outputs, err := requests[n].Answer(ctx)
		answers[n].Sample = int(n)
		for _, out := range outputs {
			answers[n].Data = append(answers[n].Data, out.Data...)
		}
		if err != nil && ctx.Err() == nil {
			mu.Lock()
			failed = err
			mu.Unlock()
			stop()
		}
		return err
	}, o)
	return m, answers, errors.Join(err, failed)
}
