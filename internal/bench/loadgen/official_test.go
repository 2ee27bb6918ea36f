package loadgen

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/debian"
)

// official returns a Python that has the official LoadGen, or skips the test.
func official(t *testing.T) string {
	t.Helper()
	pins, err := os.ReadFile("testdata/mlcommons-loadgen.txt")
	if err != nil {
		t.Fatal(err)
	}
	cache, err := debian.CacheDir()
	if err != nil {
		t.Skip(err)
	}
	digest := sha256.Sum256(pins)
	folder := filepath.Join(cache, "python-clients-"+hex.EncodeToString(digest[:])[:16])
	if _, err := os.Stat(filepath.Join(folder, "complete")); err != nil {
		t.Skipf("needs the official LoadGen: run scripts/python-clients.sh internal/bench/loadgen/testdata/mlcommons-loadgen.txt: %v", err)
	}
	return filepath.Join(folder, "bin", "python")
}

// traced reads the latencies that the official LoadGen measured, to the
// nanosecond, from its trace.
func traced(t *testing.T, folder string) []Query {
	t.Helper()
	f, err := os.Open(filepath.Join(folder, "mlperf_log_trace.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var queries []Query
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := bytes.TrimSuffix(lines.Bytes(), []byte(","))
		if !bytes.Contains(line, []byte(`"name":"Sample"`)) || !bytes.Contains(line, []byte(`"ph":"b"`)) {
			continue
		}
		var event struct {
			TS   float64
			Args struct {
				Query    int           `json:"query_seq"`
				Complete time.Duration `json:"complete_ns"`
			}
		}
		if err := json.Unmarshal(line, &event); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		for len(queries) <= event.Args.Query { // they come as they ended
			queries = append(queries, Query{})
		}
		q := &queries[event.Args.Query]
		q.Issued = time.Duration(event.TS * 1e3)
		q.Samples = append(q.Samples, event.Args.Complete)
	}
	if err := lines.Err(); err != nil || len(queries) == 0 {
		t.Fatalf("%d queries in the trace, %v", len(queries), err)
	}
	first := queries[0].Issued
	for i := range queries {
		queries[i].Issued -= first
	}
	return queries
}

// results are the values of a detailed log by which a run is judged.
func results(t *testing.T, folder string) map[string]any {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(folder, DetailFile))
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]any{}
	for line := range strings.SplitSeq(strings.TrimSpace(string(raw)), "\n") {
		text, ok := strings.CutPrefix(line, ":::MLLOG ")
		var entry struct {
			Key   string
			Value any
		}
		if err := json.Unmarshal([]byte(text), &entry); !ok || err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		values[entry.Key] = entry.Value
	}
	return values
}

// satisfied are the lines of a summary that say Yes or NO, VALID or INVALID.
func satisfied(t *testing.T, folder string) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(folder, SummaryFile))
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^ *([^:\n]+?) *: (Yes|NO|VALID|INVALID|[\d.]+)$`).FindAllStringSubmatch(string(raw), -1) {
		lines[m[1]] = m[2]
	}
	return lines
}

// TestOfficial lets the official LoadGen measure a system and judges the same
// latencies: every result in its logs has to be the same in ours.
func TestOfficial(t *testing.T) {
	python := official(t)
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		official map[string]any
		own      Settings
		wrong    bool // the run is to be invalid
	}{
		"single stream": {map[string]any{"scenario": "SingleStream", "min_duration_ms": 300, "min_query_count": 200, "single_stream_expected_latency_ns": 100_000},
			Settings{Scenario: SingleStream, MinDuration: 300 * ms, MinQueries: 200}, false},
		"single stream, too few for early stopping": {map[string]any{"scenario": "SingleStream", "min_duration_ms": 20, "min_query_count": 40},
			Settings{Scenario: SingleStream, MinDuration: 20 * ms, MinQueries: 40}, true},
		"single stream, another percentile": {map[string]any{"scenario": "SingleStream", "min_duration_ms": 100, "min_query_count": 300, "single_stream_target_latency_percentile": .95},
			Settings{Scenario: SingleStream, MinDuration: 100 * ms, MinQueries: 300, Percentile: .95}, false},
		"multi stream": {map[string]any{"scenario": "MultiStream", "min_duration_ms": 300, "min_query_count": 700, "multi_stream_samples_per_query": 2, "longest": 0.0006},
			Settings{Scenario: MultiStream, MinDuration: 300 * ms, MinQueries: 700, Samples: 2}, false},
		"multi stream, too few for early stopping": {map[string]any{"scenario": "MultiStream", "min_duration_ms": 100, "min_query_count": 100},
			Settings{Scenario: MultiStream, MinDuration: 100 * ms, MinQueries: 100}, true},
		"server": {map[string]any{"scenario": "Server", "min_duration_ms": 300, "min_query_count": 500, "server_target_qps": 400, "server_target_latency_ns": 1_000_000_000},
			Settings{Scenario: Server, MinDuration: 300 * ms, MinQueries: 500, QPS: 400, Latency: time.Second}, false},
		"server that misses its latency": {map[string]any{"scenario": "Server", "min_duration_ms": 300, "min_query_count": 500, "server_target_qps": 400, "server_target_latency_ns": 20_000_000, "stall": 0.05},
			Settings{Scenario: Server, MinDuration: 300 * ms, MinQueries: 500, QPS: 400, Latency: 20 * ms}, true},
		"server, too few for early stopping": {map[string]any{"scenario": "Server", "min_duration_ms": 100, "min_query_count": 100, "server_target_qps": 400, "server_target_latency_ns": 1_000_000_000},
			Settings{Scenario: Server, MinDuration: 100 * ms, MinQueries: 100, QPS: 400, Latency: time.Second}, true},
		"offline": {map[string]any{"scenario": "Offline", "min_duration_ms": 300, "min_query_count": 100, "offline_expected_qps": 2000},
			Settings{Scenario: Offline, MinDuration: 300 * ms, MinQueries: 100, QPS: 2000}, false},
		"offline, too short": {map[string]any{"scenario": "Offline", "min_duration_ms": 1000, "min_query_count": 10, "offline_expected_qps": 10},
			Settings{Scenario: Offline, MinDuration: time.Second, MinQueries: 10, QPS: 10}, true},
	} {
		t.Run(name, func(t *testing.T) {
			theirs, ours := t.TempDir(), t.TempDir()
			settings := map[string]any{"mode": "PerformanceOnly", "shortest": 0.0003, "longest": 0.001}
			maps.Copy(settings, c.official)
			text, err := json.Marshal(settings)
			if err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(t.Context(), python, "testdata/loadgen.py", theirs, string(text)).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			c.own.Library = 16
			c.own = c.own.WithDefaults()
			if err := c.own.Check(); err != nil {
				t.Fatal(err)
			}
			v, err := Judge(c.own, traced(t, theirs))
			if err != nil {
				t.Fatal(err)
			}
			if err := (&Log{Settings: c.own, System: "PySUT", Began: time.Now(), Verdict: v}).Write(ours); err != nil {
				t.Fatal(err)
			}
			if v.Valid == c.wrong {
				t.Errorf("the run is valid: %v, which the case did not mean", v.Valid)
			}
			compare(t, results(t, theirs), results(t, ours))
			want, got := satisfied(t, theirs), satisfied(t, ours)
			for key, value := range got {
				if other, known := want[key]; known && !near(other, value) && key != "target_qps" { // compared in the detailed log
					t.Errorf("%s: the official LoadGen says %s, ours %s", key, other, value)
				}
			}
			for key := range want {
				if _, known := got[key]; !known && (strings.Contains(key, "satisfied") || strings.Contains(key, "percentile") || key == "Result is") {
					t.Errorf("the summary lacks %q", key)
				}
			}
			checkEarly(t, results(t, theirs)["early_stopping_result"].(string), v)
		})
	}
}

// compare wants every value that both logs have to be the same, and ours to
// have every result.
func compare(t *testing.T, theirs, ours map[string]any) {
	t.Helper()
	for key, want := range theirs {
		got, known := ours[key]
		switch {
		case key == "result_invalid_reason": // in words
		case !known && strings.HasPrefix(key, "result_"):
			t.Errorf("the detailed log lacks %s", key)
		case known && (strings.HasPrefix(key, "result_") || strings.HasPrefix(key, "early_") || strings.HasPrefix(key, "effective_") || strings.HasPrefix(key, "requested_")):
			if !near(want, got) && !unlike(key, theirs) {
				t.Errorf("%s: the official LoadGen says %v, ours %v", key, want, got)
			}
		}
	}
}

// unlike are values that mean something only to the official one: the rates of
// the streams are guesses of how many queries to prepare.
func unlike(key string, theirs map[string]any) bool {
	return key == "effective_target_qps" && strings.HasSuffix(theirs["effective_scenario"].(string), "Stream")
}

// near allows what the trace rounds: times of issue to the microsecond.
func near(want, got any) bool {
	a, aok := number(want)
	b, bok := number(got)
	if !aok || !bok {
		return want == got
	}
	return a == b || a != 0 && (a-b)/a < 2e-4 && (b-a)/a < 2e-4 && a != float64(int64(a))
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case string:
		f, err := strconv.ParseFloat(v, 64)
		return f, err == nil
	}
	return 0, false
}

// checkEarly compares early stopping with the official one's words.
func checkEarly(t *testing.T, words string, v *Verdict) {
	t.Helper()
	for pattern, got := range map[string]int{
		`at least (\d+) more queries`: v.Early.Needed,
		`discard (\d+) highest`:       v.Early.Discarded,
		`percentile estimate: (\d+)`:  int(v.Early.Estimate),
	} {
		m := regexp.MustCompile(pattern).FindStringSubmatch(words)
		if m == nil {
			continue
		}
		if want, err := strconv.Atoi(m[1]); err != nil || want != got {
			t.Errorf("the official LoadGen says %q, ours %d", m[0], got)
		}
	}
	if m := regexp.MustCompile(`Need to process at least (\d+) queries`).FindStringSubmatch(words); m != nil {
		if want, err := strconv.Atoi(m[1]); err != nil || want != v.Early.Needed+v.Queries {
			t.Errorf("the official LoadGen says %q, ours %d", m[0], v.Early.Needed+v.Queries)
		}
	}
}
