package systemtest

import (
	"encoding/json"
	"fmt"
	"testing"

	dto "github.com/prometheus/client_model/go"

	"oscine.dev/oscine/internal/bench/serving"
	"oscine.dev/oscine/internal/cli"
	"oscine.dev/oscine/internal/client"
)

// TestServingBesideBatch serves a model with a latency objective on a CPU that a
// batch job never leaves idle, and that it asked for most of: its answers are as quick
// as alone. Beside the same job in the model's own class, where the kernel divides the
// CPU by weight, they are not.
//
// Nothing is judged by the clock alone, which a busy host spoils: the three loads are
// compared with each other, and how long the model's threads waited for the CPU is
// counted by the guest's kernel. All runs on one CPU, the others are kept free: an
// emulator on a small host does not run four at once.
func TestServingBesideBatch(t *testing.T) {
	n, _ := resumeNode(t, standard())
	n.apply(classManifest("keeps", "interactive", `{cpu: "3", cpuPolicy: exclusive, memory: 32Mi}`))
	n.run("pack", "install", onnxruntimePack(n))
	n.run("serve", digits, "--class", "interactive")
	n.awaitPhase("workload", "keeps", "Running", later)
	job := func(class string) {
		n.apply(abuser("job", class, "copy", `{cpu: 800m, memory: 128Mi}`, ""))
		n.awaitPhase("workload", "job", "Running", later)
	}
	job("interactive")
	stock := n.serveLoad("beside a job of its class")
	n.run("delete", "workload", "job")

	spec, _ := n.object("model", "digits")["spec"].(map[string]any)
	n.apply(fmt.Sprintf(`
apiVersion: oscine.dev/v1
kind: Model
metadata: {name: digits}
spec: {class: interactive, source: %v, resources: {cpu: 100m, memory: 256Mi, latency: 100ms}}
`, spec["source"]))
	n.eventually("the model with its objective", later, func() (string, bool) {
		st, _ := n.object("model", "digits")["status"].(map[string]any)
		return fmt.Sprint(st), st["phase"] == "Running" && st["update"] == nil
	})
	alone := n.serveLoad("alone")
	job("batch")
	beside := n.serveLoad("beside a batch job")

	for _, share := range []float64{.5, .9} {
		got, ok := beside.waits.Quantile(share)
		if want, above := stock.waits.Quantile(share); !ok || above && got > want/4 {
			t.Errorf("%g of the waits for a CPU are within %gs beside a batch job, and within %gs beside a job of its class", share, got, want)
		}
	}
	if beside.p99*beside.p99 > alone.p99*stock.p99 {
		t.Errorf("99 %% of the answers take %.3gs beside a batch job, %.3gs alone, and %.3gs beside a job of its class: that is not as alone", beside.p99, alone.p99, stock.p99)
	}
}

// served is what became of a load on the model digits.
type served struct {
	p99   float64           // of the answers, in seconds
	waits *client.Histogram // of the model's threads for a CPU, in seconds
}

// serveLoad sends requests in the open loop and tells what became of them.
func (n *testNode) serveLoad(what string) served {
	n.t.Helper()
	before := n.metrics()
	out := n.run("bench", "serve", "digits", "--rate", "20", "--duration", "4s", "--warmup", "500ms", "--seed", "1", "-o", "json")
	after := n.metrics()
	var report serving.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		n.t.Fatalf("%v in\n%s", err, out)
	}
	if report.Failed > 0 || report.Answered < 50 {
		n.t.Errorf("%s: %d requests were answered, %d failed:\n%s", what, report.Answered, report.Failed, out)
	}
	const waits, misses = "oscine_container_wakeup_latency_seconds", "oscine_model_deadline_misses_total"
	s := served{report.Latency.Quantile(.99).Seconds(), client.Between(of(before, waits, "name"), of(after, waits, "name"))}
	if s.waits == nil || s.waits.Count < 100 {
		n.t.Fatalf("%s: its waits for a CPU were not measured: %+v", what, s.waits)
	}
	missed := of(after, misses, "model").GetCounter().GetValue() - of(before, misses, "model").GetCounter().GetValue()
	half, _ := s.waits.Quantile(.5)
	most, _ := s.waits.Quantile(.9)
	n.t.Logf("%s: %d answers, half within %v, 99 %% within %v, %g after the objective; half of %d waits for a CPU within %gs, 90 %% within %gs", what,
		report.Answered, report.Latency.Quantile(.5), report.Latency.Quantile(.99), missed, s.waits.Count, half, most)
	return s
}

// metrics are the node's.
func (n *testNode) metrics() map[string]*dto.MetricFamily {
	n.t.Helper()
	node, err := (&cli.Env{ConfigPath: n.config}).Client()
	if err != nil {
		n.t.Fatal(err)
	}
	families, err := node.Metrics(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	return families
}

// of is the metric whose label says digits, nil where there is none.
func of(families map[string]*dto.MetricFamily, name, label string) *dto.Metric {
	for _, m := range families[name].GetMetric() {
		for _, l := range m.Label {
			if l.GetName() == label && l.GetValue() == "digits" {
				return m
			}
		}
	}
	return nil
}
