package loadgen

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The numbers are those that the rules of MLPerf Inference name.
func TestEarlyStopping(t *testing.T) {
	for _, c := range []struct {
		slow  int
		share float64
		want  int
	}{{0, .9, 44}, {1, .9, 64}, {0, .95, 90}, {0, .97, 152}, {0, .99, 459}, {1, .99, 662}} {
		if got := QueriesNeeded(c.slow, c.share); got != c.want {
			t.Errorf("with %d over the latency, %g needs %d queries, want %d", c.slow, c.share, got, c.want)
		}
	}
	for n := 1; n < 5000; n += 7 {
		for _, share := range []float64{.5, .9, .99, .999} {
			slow, ok := Slow(n, share)
			if ok != (n >= QueriesNeeded(0, share)) {
				t.Fatalf("%d queries prove %g: %v", n, share, ok)
			}
			if ok && (QueriesNeeded(slow, share) > n || QueriesNeeded(slow+1, share) <= n) {
				t.Fatalf("of %d queries %d may be over the latency of %g; %d need %d", n, slow, share, slow, QueriesNeeded(slow, share))
			}
		}
	}
	// Beside the sum in its plain form.
	for _, n := range []int{10, 100, 700} {
		for slow := range n / 20 {
			sum, choose := 0.0, 1.0
			for k := range slow + 1 {
				sum += choose * math.Pow(.1, float64(k)) * math.Pow(.9, float64(n-k))
				choose = choose * float64(n-k) / float64(k+1)
			}
			if got := likely(n, slow, .9); math.Abs(got-sum) > 1e-12 {
				t.Errorf("at most %d of %d: %g, want %g", slow, n, got, sum)
			}
		}
	}
	if n := QueriesNeeded(100_000, .999); n < 100_000_000 || n > 110_000_000 {
		t.Errorf("100000 over the latency of 0.999 need %d queries", n)
	}
}

func TestSettings(t *testing.T) {
	for want, s := range map[string]Settings{
		`no scenario "burst"`:        {Scenario: "burst", Library: 1},
		`no mode "fast"`:             {Scenario: Server, Mode: "fast", QPS: 1, Latency: 1, Library: 1},
		"needs a rate above 0":       {Scenario: Server, Latency: time.Second, Library: 1},
		"needs the latency":          {Scenario: Server, QPS: 1, Library: 1},
		"find-peak searches":         {Scenario: Offline, Mode: FindPeak, QPS: 1, Library: 1},
		"percentile 1.5":             {Scenario: SingleStream, Percentile: 1.5, Library: 1},
		"a run has a duration":       {Scenario: SingleStream},
		"11000000000 samples":        {Scenario: Offline, QPS: 1e7, MinDuration: 1000 * time.Second, Library: 1},
		"scenario offline needs a r": {Scenario: Offline, QPS: math.NaN(), Library: 1},
	} {
		if err := s.WithDefaults().Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	got := Settings{Scenario: Offline, QPS: 1000, MinDuration: 10 * time.Second}.WithDefaults()
	if got.Samples != 11000 || got.MinQueries != 1 || got.Percentile != .99 {
		t.Errorf("offline: %+v", got)
	}
}

func TestFailedQueriesMakeARunInvalid(t *testing.T) {
	s := Settings{Scenario: SingleStream, Library: 1}.WithDefaults()
	queries := make([]Query, 200)
	for i := range queries {
		queries[i] = Query{Issued: time.Duration(i) * time.Millisecond, Samples: []time.Duration{time.Millisecond}}
	}
	v, err := Judge(s, queries)
	if err != nil || !v.Valid {
		t.Fatalf("%+v, %v", v, err)
	}
	queries[7].Failed = true
	v, err = Judge(s, queries)
	if err != nil || v.Valid || v.Failed != 1 || !slices.ContainsFunc(v.Advice, func(a string) bool { return strings.HasPrefix(a, "1 queries failed") }) {
		t.Errorf("%+v, %v", v, err)
	}
	dir := filepath.Join(t.TempDir(), "new", "logs")
	if err := (&Log{Settings: s, Verdict: v, Began: time.Now()}).Write(dir); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, SummaryFile)); err != nil || !strings.Contains(string(text), "1 ERRORS encountered") || !strings.Contains(string(text), "Result is : INVALID") {
		t.Errorf("%s, %v", text, err)
	}
	for _, none := range [][]Query{nil, {{Failed: true}}} {
		if v, err := Judge(s, none); err == nil {
			t.Errorf("%v is judged: %+v", none, v)
		}
	}
}

func TestAccuracyLog(t *testing.T) {
	var text strings.Builder
	if err := (&Log{Answers: []Answer{{0, []byte{1, 0xab}}, {5, nil}}}).accuracy(&text); err != nil {
		t.Fatal(err)
	}
	want := "[\n{ \"seq_id\" : 0, \"qsl_idx\" : 0, \"data\" : \"01AB\" },\n{ \"seq_id\" : 1, \"qsl_idx\" : 5, \"data\" : \"\" }\n]\n"
	if text.String() != want {
		t.Errorf("got %s", text.String())
	}
}

func TestPeak(t *testing.T) {
	const limit = 437.0
	var tried []float64
	try := func(_ context.Context, s Settings) (*Verdict, error) {
		tried = append(tried, s.QPS)
		return &Verdict{PerformanceMet: s.QPS <= limit}, nil
	}
	quiet := func(string) {}
	s := Settings{Scenario: Server, Mode: FindPeak, QPS: 10, Latency: time.Second}
	v, err := Peak(t.Context(), s, try, quiet)
	if err != nil || v.Peak > limit || v.Peak < .985*limit || len(tried) > 20 {
		t.Errorf("peak %+v, %v after %v", v, err, tried)
	}
	s.QPS = 1000
	if _, err := Peak(t.Context(), s, try, quiet); err == nil || !strings.Contains(err.Error(), "begin at a lower rate") {
		t.Errorf("a first rate that is too high: %v", err)
	}
	broken := errors.New("broken")
	if _, err := Peak(t.Context(), s, func(context.Context, Settings) (*Verdict, error) { return nil, broken }, quiet); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}
