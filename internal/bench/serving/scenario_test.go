package serving

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"oscine.dev/oscine/internal/bench/loadgen"
	"oscine.dev/oscine/internal/serve/oip"
	"oscine.dev/oscine/internal/tensor"
)

func TestScenarios(t *testing.T) {
	const work = 200 * time.Microsecond
	for _, c := range []struct {
		settings loadgen.Settings
		clients  int
		most     int // samples at a time
	}{
		{loadgen.Settings{Scenario: loadgen.SingleStream, MinDuration: 50 * time.Millisecond, MinQueries: 70}, 1, 1},
		{loadgen.Settings{Scenario: loadgen.MultiStream, MinQueries: 670}, 1, 8},
		{loadgen.Settings{Scenario: loadgen.Server, QPS: 2000, Latency: time.Second, MinQueries: 500, MinDuration: 400 * time.Millisecond}, 256, 256},
		{loadgen.Settings{Scenario: loadgen.Offline, QPS: 1000, MinDuration: time.Millisecond, MinQueries: 400}, 16, 16},
	} {
		var mu sync.Mutex
		at, most, seen := 0, 0, map[uint64]int{}
		c.settings.Library = 5
		s := c.settings.WithDefaults()
		m, v, err := RunScenario(t.Context(), func(_ context.Context, sample uint64) error {
			mu.Lock()
			at++
			most = max(most, at)
			seen[sample]++
			mu.Unlock()
			time.Sleep(work)
			mu.Lock()
			at--
			mu.Unlock()
			return nil
		}, s, Options{Clients: c.clients, Timeout: time.Minute})
		if err != nil {
			t.Fatalf("%s: %v", s.Scenario, err)
		}
		samples := 0
		for _, n := range seen {
			samples += n
		}
		if !v.Valid || v.Least < work || most > c.most || len(seen) != 5 || v.Queries < s.MinQueries || samples != v.Queries*s.Samples || m.Answered == 0 {
			t.Errorf("%s: %d at a time, %d samples of %v, %+v", s.Scenario, most, samples, seen, v)
		}
	}
}

func TestServerRunsForItsDuration(t *testing.T) {
	for seed := range uint64(200) {
		s := loadgen.Settings{Scenario: loadgen.Server, QPS: 50, MinDuration: time.Second, MinQueries: 30, Seed: seed}
		n := arrivalsOf(s)
		next := Poisson(s.QPS, seed)
		first := next()
		last := first
		for range n - 1 {
			last = next()
		}
		if n < s.MinQueries || last-first < s.MinDuration || n > 100 {
			t.Errorf("seed %d: %d queries in %v", seed, n, last-first)
		}
	}
}

func TestScenarioWithFailures(t *testing.T) {
	s := loadgen.Settings{Scenario: loadgen.MultiStream, Samples: 2, MinQueries: 10, Library: 1}.WithDefaults()
	n := 0
	var mu sync.Mutex
	_, v, err := RunScenario(t.Context(), func(context.Context, uint64) error {
		mu.Lock()
		defer mu.Unlock()
		if n++; n == 5 {
			return errors.New("refused")
		}
		return nil
	}, s, Options{Clients: 1, Timeout: time.Second})
	if err != nil || v.Valid || v.Failed != 1 {
		t.Errorf("%+v, %v", v, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	m, v, err := RunScenario(ctx, func(context.Context, uint64) error { cancel(); return nil }, s, Options{Clients: 1, Timeout: time.Second})
	if err != nil || v != nil || !m.Interrupted {
		t.Errorf("an interrupted run: %+v, %+v, %v", m, v, err)
	}
}

func TestAccuracy(t *testing.T) {
	target, err := Dial(Endpoint{URL: serveDoubler(t), Protocol: GRPC, Clients: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	var requests []Prepared
	for i := range 10 {
		row := oip.Tensor{Spec: tensor.Spec{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{1, 4}}, Data: make([]byte, 16)}
		row.Data[3] = byte(i) // of the exponent
		one, err := target.Prepare("m", []oip.Tensor{row}, Binary)
		if err != nil {
			t.Fatal(err)
		}
		requests = append(requests, one)
	}
	o := Options{Clients: 4, Timeout: 10 * time.Second, Warmup: time.Second}
	m, answers, err := RunAccuracy(t.Context(), requests, o)
	if err != nil || m.Answered != 10 || len(answers) != 10 {
		t.Fatalf("%+v, %v", m, err)
	}
	for i, a := range answers {
		outputs, err := requests[i].Answer(t.Context())
		if err != nil || a.Sample != i || !slices.Equal(a.Data[:16], outputs[0].Data) {
			t.Errorf("answer %d: %v, %v", i, a, err)
		}
	}
	wrong, err := target.Prepare("other", nil, Binary)
	if err != nil {
		t.Fatal(err)
	}
	var refused *oip.Error
	if _, _, err := RunAccuracy(t.Context(), append(requests, wrong), o); !errors.As(err, &refused) {
		t.Errorf("a request that fails: %v", err)
	}
}
