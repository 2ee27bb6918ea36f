package cli

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"oscine.dev/oscine/internal/object"

	pb "oscine.dev/oscine/internal/api/oscinepb"
)

// A value that the node does not tell is -, a rate is that of the time measured.
func TestTopObjects(t *testing.T) {
	named := func(kind object.Kind, name string) object.Header {
		return object.Header{Kind: kind, Metadata: object.Metadata{Name: name}}
	}
	web := &object.Workload{Header: named(object.KindWorkload, "web"), Spec: object.WorkloadSpec{Class: object.Realtime}}
	idle := &object.Workload{Header: named(object.KindWorkload, "idle"), Spec: object.WorkloadSpec{Class: object.Batch}}
	digits := &object.Model{Header: named(object.KindModel, "digits")}
	n := &fakeNode{objects: []*pb.Object{
		asSent(t, web, &object.WorkloadStatus{Observed: object.Observed{Phase: object.Running}}),
		asSent(t, idle, &object.WorkloadStatus{Observed: object.Observed{Phase: object.Unplaced}}),
		asSent(t, digits, &object.ModelStatus{Observed: object.Observed{Phase: object.Running}}),
	}}
	var scrapes atomic.Int64
	status := http.StatusOK
	n.metrics = func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		k := scrapes.Add(1) * 1000
		labels := `kind="Workload",name="web",class="realtime"`
		fmt.Fprintf(w, "# TYPE oscine_container_cpu_usage_seconds_total counter\noscine_container_cpu_usage_seconds_total{%s} %d\n", labels, k)
		fmt.Fprintf(w, "# TYPE oscine_container_memory_usage_bytes gauge\noscine_container_memory_usage_bytes{%s} 1.572864e+06\n", labels)
		fmt.Fprintf(w, "# TYPE oscine_container_promises gauge\noscine_container_promises{%s} 3\n", labels)
		fmt.Fprintf(w, "# TYPE oscine_container_promises_broken gauge\noscine_container_promises_broken{%s} 1\n", labels)
		fmt.Fprintf(w, "# TYPE oscine_container_wakeup_latency_seconds histogram\noscine_container_wakeup_latency_seconds_bucket{%s,le=\"5e-05\"} %d\noscine_container_wakeup_latency_seconds_bucket{%s,le=\"+Inf\"} %d\noscine_container_wakeup_latency_seconds_sum{%s} 1\noscine_container_wakeup_latency_seconds_count{%s} %d\n",
			labels, k, labels, k, labels, labels, k)
		for name, each := range map[string]int64{"rows_total": 4, "runs_total": 2, "deadline_misses_total": 1} {
			fmt.Fprintf(w, "# TYPE oscine_model_%s counter\noscine_model_%s{model=\"digits\"} %d\n", name, name, k*each)
		}
		fmt.Fprintf(w, "# TYPE oscine_model_queue_duration_seconds_total counter\noscine_model_queue_duration_seconds_total{model=\"digits\"} %g\n", float64(k)*.002)
		fmt.Fprintf(w, "# TYPE oscine_model_pending_requests gauge\noscine_model_pending_requests{model=\"digits\"} 5\n")
		fmt.Fprint(w, "# TYPE oscine_model_request_duration_seconds histogram\n")
		for i, bound := range []string{"0.001", "0.005", "+Inf"} {
			fmt.Fprintf(w, "oscine_model_request_duration_seconds_bucket{model=\"digits\",le=%q} %d\n", bound, k/10*[]int64{6, 9, 10}[i])
		}
		fmt.Fprintf(w, "oscine_model_request_duration_seconds_sum{model=\"digits\"} 1\noscine_model_request_duration_seconds_count{model=\"digits\"} %d\n", k)
		fmt.Fprintf(w, "# TYPE oscine_model_requests_total counter\noscine_model_requests_total{model=\"digits\",result=\"success\"} %d\n", k)
	}
	n.serve(t)
	for kind, lines := range map[string][]string{
		"workloads": {
			`^NAME +CLASS +PHASE +CPU +MEMORY +LIMIT +WAKE-UPS/S +WAKE-UP P99 +PROMISES$`,
			`^web +realtime +Running +\d+\.\d\d +1\.5 MiB +- +\d+ +50\.0 µs +2 kept, 1 broken$`,
			`^idle +batch +Unplaced +- +- +- +- +- +-$`,
		},
		"models": {`REQUESTS/S +P50 +P99 +WAIT +PENDING +BATCH +LATE/S$`, `^digits +- +Running +- +- +- +- +- +- +\d+\.\d +1\.00 ms +- +2\.00 ms +5 +2\.0 +\d+\.\d$`},
	} {
		exit, out, errOut := n.command(t, "top", kind, "--every", "100ms")
		if exit != 0 {
			t.Fatalf("%s: exit status %d: %s", kind, exit, errOut)
		}
		got := strings.Split(strings.TrimSpace(out), "\n")
		if len(got) != len(lines) {
			t.Fatalf("%s: got\n%s", kind, out)
		}
		for i, want := range lines {
			if !regexp.MustCompile(want).MatchString(got[i]) {
				t.Errorf("%s: line %d: got %q, want %q", kind, i, got[i], want)
			}
		}
	}
	exit, out, errOut := n.command(t, "top", "models", "--every", "100ms", "--histogram")
	if exit != 0 || !regexp.MustCompile(`(?s)\ndigits: latency of 1000 requests in \d+ms\n +≤ 1 ms  █+ +600\n +≤ 5 ms  █+ +300\n100 took longer\n$`).MatchString(out) {
		t.Errorf("exit status %d: %s\n%s", exit, errOut, out)
	}
	if exit, _, _ := n.command(t, "top", "workloads", "--every", "1ms"); exit != exitUsage {
		t.Errorf("too short: exit status %d", exit)
	}
	status = http.StatusForbidden
	if exit, _, errOut := n.command(t, "top", "models"); exit != exitDenied || !strings.Contains(errOut, "403") {
		t.Errorf("forbidden: exit status %d, %s", exit, errOut)
	}
}
