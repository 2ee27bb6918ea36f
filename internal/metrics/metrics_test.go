package metrics

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// busy is a node with something of everything.
func busy() Snapshot {
	usage := Usage{CPU: 1500 * time.Millisecond, Throttled: time.Second, Memory: 1 << 20, Processes: 3,
		Pressure: []Pressure{{"cpu", 2 * time.Second, time.Second}, {"memory", 0, 0}, {"io", time.Second, 0}}}
	return Snapshot{
		Version: "0.1", Kernel: "7.2", Mode: "hosted", Booted: time.Unix(1_700_000_000, 500_000_000), CertificateEnd: time.Unix(1_800_000_000, 0), Missing: 2,
		CPUs: 8, ReservedCPUs: 1, Memory: []NodeMemory{{0, 1 << 30, 1 << 29}}, Data: FileSystem{1 << 40, 1 << 39, 1000, 900},
		Phases: []string{"Running", "Failed"},
		Objects: []Object{
			{Kind: "Workload", Name: "web", Phase: "Running", Restarts: 2, Started: time.Unix(1_700_000_100, 0), Container: &Container{
				Usage: usage, Class: "interactive", MemoryLimit: 1 << 30, LimitHits: 1, Killed: 2, ForksRefused: 3, Promises: 4, Broken: 1,
				Wakeups: &Distribution{Count: 10, Sum: time.Millisecond, Within: within(WakeupBounds())}, WakeupsMissed: 5,
			}},
			{Kind: "Model", Name: "digits", Phase: "Failed"},
		},
		Models:        []Model{{Name: "digits", Ready: true, Requests: 10, Errors: 3, Expired: 1, Missed: 2, Rows: 20, Loads: 6, Evictions: 5, Queued: 2 * time.Second, Pending: 5, Runs: 4, Compute: 3 * time.Second, PromptTokens: 7, Generated: 9, Stateful: true, Sequences: 4, Cache: &Cache{Hits: 1, Misses: 2, Bytes: 3, HitTime: time.Millisecond, MissTime: time.Microsecond}, Durations: Distribution{Count: 7, Sum: time.Second, Within: within(RequestBounds())}}},
		Clients:       []Client{{"web", 11, 12}},
		Classes:       []Class{{"interactive", usage}},
		BatchHeldBack: true,
		Slots:         []Slot{{"root-a", "1.0", "good", true}, {"root-b", "", "empty", false}},
		Upgrade:       Upgrade{To: "1.1", Stage: "armed", Ended: map[string]int{"good": 3, "failed": 1}, Locks: 2, FromPeers: 300, FromSource: 20, Shared: &Shared{Sent: 500, Bytes: 400}},
		Devices:       []Device{{ID: "gpu0", Kind: "gpu", Vendor: "a \"vendor\"\n", Model: "b\\ad\xff\x1b[31m", Driver: "x", Healthy: true, Held: 1, Memory: 1 << 34, MemoryUsed: 0, Busy: .5, Celsius: -1, Watts: 100}},
	}
}

func within(bounds []time.Duration) []uint64 {
	counts := make([]uint64, len(bounds))
	for i := range counts {
		counts[i] = uint64(min(i, 7))
	}
	return counts
}

func scrape(t *testing.T, s Snapshot) map[string]*dto.MetricFamily {
	t.Helper()
	server := httptest.NewServer(Handler(func() Snapshot { return s }))
	defer server.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	found, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v", resp.Status, err)
	}
	return found
}

// find returns the one series of a family with these labels, as "a=b c=d".
func find(t *testing.T, found map[string]*dto.MetricFamily, name, labels string) *dto.Metric {
	t.Helper()
	for _, m := range found["oscine_"+name].GetMetric() {
		var have []string
		for _, l := range m.GetLabel() {
			have = append(have, l.GetName()+"="+l.GetValue())
		}
		if strings.Join(have, " ") == labels {
			return m
		}
	}
	t.Errorf("no oscine_%s{%s} in %v", name, labels, found["oscine_"+name])
	return &dto.Metric{}
}

func TestScrapeIsReadByPrometheus(t *testing.T) {
	found := scrape(t, busy())
	for _, c := range []struct {
		name, labels string
		want         float64
	}{
		{"build_info", "kernel=7.2 mode=hosted version=0.1", 1},
		{"boot_time_seconds", "", 1_700_000_000.5},
		{"certificate_expiry_time_seconds", "", 1_800_000_000},
		{"memory_used_bytes", "numa_node=0", 1 << 29},
		{"object_phase", "kind=Workload name=web phase=Running", 1},
		{"object_phase", "kind=Workload name=web phase=Failed", 0},
		{"slot_info", "health=good running=true slot=root-a version=1.0", 1},
		{"slot_info", "health=empty running=false slot=root-b version=", 1},
		{"upgrade_info", "stage=armed to=1.1", 1},
		{"upgrades_ended_total", "outcome=good", 3},
		{"upgrade_locks", "", 2},
		{"release_received_bytes_total", "from=peer", 300},
		{"release_received_bytes_total", "from=source", 20},
		{"release_sent_bytes_total", "", 500},
		{"release_shared_bytes", "", 400},
		{"object_restarts_total", "kind=Workload name=web", 2},
		{"container_cpu_usage_seconds_total", "class=interactive kind=Workload name=web", 1.5},
		{"container_pressure_waiting_seconds_total", "class=interactive kind=Workload name=web resource=cpu", 2},
		{"container_pressure_stalled_seconds_total", "class=interactive kind=Workload name=web resource=cpu", 1},
		{"container_promises_broken", "class=interactive kind=Workload name=web", 1},
		{"model_requests_total", "model=digits result=success", 7},
		{"model_requests_total", "model=digits result=error", 2},
		{"model_rows_total", "model=digits", 20},
		{"model_queue_duration_seconds_total", "model=digits", 2},
		{"model_pending_requests", "model=digits", 5},
		{"model_loads_total", "model=digits", 6},
		{"model_evictions_total", "model=digits", 5},
		{"client_requests_total", "client=web result=admitted", 11},
		{"client_requests_total", "client=web result=refused", 12},
		{"model_requests_total", "model=digits result=expired", 1},
		{"class_memory_usage_bytes", "class=interactive", 1 << 20},
		{"batch_held_back", "", 1},
		{"device_busy_ratio", "device=gpu0", .5},
		{"device_memory_used_bytes", "device=gpu0", 0},
	} {
		m := find(t, found, c.name, c.labels)
		if got := m.GetCounter().GetValue() + m.GetGauge().GetValue(); got != c.want {
			t.Errorf("oscine_%s{%s}: got %v, want %v", c.name, c.labels, got, c.want)
		}
	}
	h := find(t, found, "model_request_duration_seconds", "model=digits").GetHistogram()
	if h.GetSampleCount() != 7 || h.GetSampleSum() != 1 || len(h.GetBucket()) != len(RequestBounds())+1 || h.GetBucket()[3].GetUpperBound() != .001 || h.GetBucket()[3].GetCumulativeCount() != 3 {
		t.Errorf("got %v", h)
	}
	if found["oscine_device_temperature_celsius"] != nil {
		t.Error("an unknown temperature is reported")
	}
	for _, name := range []string{"go_goroutines", "process_resident_memory_bytes"} {
		if found[name] == nil {
			t.Errorf("the daemon's own %s is missing", name)
		}
	}
}

// What others name reaches the reader as text and nothing else.
func TestLabelsFromOutsideAreEscaped(t *testing.T) {
	found := scrape(t, busy())
	find(t, found, "device_info", "device=gpu0 driver=x kind=gpu model=b\\ad\\xff\\x1b[31m vendor=a \"vendor\" ")
	if got := label(strings.Repeat("é", 1000)); len(got) > maxLabel || got != strings.Repeat("é", maxLabel/2) {
		t.Errorf("a long name: got %d bytes", len(got))
	}
}

func FuzzLabel(f *testing.F) {
	f.Add("GeForce \"RTX\"\n\x00\xff")
	f.Fuzz(func(t *testing.T, text string) {
		s := busy()
		s.Devices[0].Vendor = text
		if _, err := newRegistry(func() Snapshot { return s }).Gather(); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}

func TestNamesAreAsPrometheusWantsThem(t *testing.T) {
	problems, err := testutil.CollectAndLint(newCollector(busy))
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	found := scrape(t, busy())
	for _, f := range families() {
		if found[f.fullName()] == nil && f.name != "device_temperature_celsius" {
			t.Errorf("%s is never written", f.fullName())
		}
	}
}

func TestSeriesAreBounded(t *testing.T) {
	s := busy()
	for n := range 3 * maxObjects {
		s.Objects = append(s.Objects, Object{Kind: "Workload", Name: fmt.Sprint("w", n), Phase: "Running"})
		s.Models = append(s.Models, Model{Name: fmt.Sprint("m", n)})
	}
	found := scrape(t, s)
	if got := len(found["oscine_object_restarts_total"].GetMetric()); got != maxObjects {
		t.Errorf("%d objects, want %d", got, maxObjects)
	}
	if got := len(found["oscine_model_ready"].GetMetric()); got != maxObjects {
		t.Errorf("%d models, want %d", got, maxObjects)
	}
	if got := find(t, found, "objects_left_out", "").GetGauge().GetValue(); got != 2*maxObjects+2 {
		t.Errorf("%v left out", got)
	}
}

// A node that cannot be read in time holds up no scrape, and only so many wait.
func TestScrapesAreBounded(t *testing.T) {
	release := make(chan struct{})
	entered := make(chan struct{}, maxScrapes)
	handler := Handler(func() Snapshot { entered <- struct{}{}; <-release; return Snapshot{} })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	answer := func() int {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/metrics", nil))
		return w.Code
	}
	done := make(chan int, maxScrapes)
	for range maxScrapes {
		go func() { done <- answer() }()
	}
	for range maxScrapes {
		<-entered
	}
	if got := answer(); got != http.StatusServiceUnavailable {
		t.Errorf("one more scrape: got %d, want 503", got)
	}
	close(release)
	for range maxScrapes {
		if got := <-done; got != http.StatusOK {
			t.Errorf("got %d, want 200", got)
		}
	}
}

// docs/metrics.md has a line for each metric, and no others.
func TestDocsListEveryMetric(t *testing.T) {
	raw, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(oscine_[a-z_]+)` \\|.*$").FindAllStringSubmatch(string(raw), -1) {
		listed[m[1]] = m[0]
	}
	kinds := map[prometheus.ValueType]string{prometheus.CounterValue: "counter", prometheus.GaugeValue: "gauge", histogramKind: "histogram"}
	for _, f := range families() {
		labels := ""
		for _, l := range f.labels {
			labels += " `" + l + "`"
		}
		want := fmt.Sprintf("| `%s` | %s |%s | %s |", f.fullName(), kinds[f.kind], labels, f.help)
		if got := listed[f.fullName()]; got != want {
			t.Errorf("docs/metrics.md:\n got %s\nwant %s", got, want)
		}
		delete(listed, f.fullName())
	}
	for name := range listed {
		t.Errorf("docs/metrics.md lists %s, which there is not", name)
	}
}
