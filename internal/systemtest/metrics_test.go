package systemtest

import (
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"oscine.dev/oscine/internal/client"
)

// testMetrics scrapes a node that runs the workload web, as Prometheus does.
func testMetrics(n *testNode) {
	t := n.t
	reader := filepath.Join(n.dir, "scraper.config")
	n.run("config", "credentials", "prometheus", "--role", "reader", "--authority", n.dir, "-o", reader)
	config, err := client.Load(reader)
	if err != nil {
		t.Fatal(err)
	}
	_, who, err := config.Context("")
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(who)
	if err != nil {
		t.Fatal(err)
	}
	web, base := c.HTTP()
	begun := time.Now()
	checkScrape(t, web, base)
	t.Logf("scraped in %v", time.Since(begun))
}

func checkScrape(t testing.TB, web *http.Client, base string) {
	t.Helper()
	resp, err := web.Get(base + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s: %s", resp.Status, text)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	found, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"oscine_build_info", "oscine_cpus", "oscine_memory_bytes", "oscine_data_free_bytes", "oscine_class_memory_usage_bytes", "process_open_fds"} {
		if len(found[name].GetMetric()) == 0 {
			t.Errorf("%s is missing", name)
		}
	}
	running := false
	for _, m := range found["oscine_object_phase"].GetMetric() {
		text := m.String()
		running = running || m.GetGauge().GetValue() == 1 && strings.Contains(text, `"web"`) && strings.Contains(text, `"Running"`)
	}
	if !running {
		t.Errorf("the workload web does not run: %v", found["oscine_object_phase"])
	}
	for _, name := range []string{"oscine_container_memory_usage_bytes", "oscine_container_cpu_usage_seconds_total", "oscine_container_promises"} {
		if len(found[name].GetMetric()) == 0 {
			t.Errorf("%s has nothing of the workload web", name)
		}
	}
}
