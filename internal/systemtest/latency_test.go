package systemtest

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/bench/classes"
	"oscine.dev/oscine/internal/cli"
)

// TestBenchLatency measures a machine under the second scheduler, kills the
// daemon meanwhile, and measures again with the CPU that it had lent.
func TestBenchLatency(t *testing.T) {
	kind := standard()
	kind.spec += "    classes: {scheduler: sched_ext}\n"
	n, m := resumeNode(t, kind)
	n.refuse([]string{"bench", "latency", "--scheduler", "stock"}, "this node's scheduler is sched_ext")
	leave := n.beginBench(t.Context())
	defer leave()
	n.eventually("the measuring process", soon, func() (string, bool) {
		out, errOut, _ := n.try("info", "-o", "json")
		return out + errOut, strings.Count(out, `"oscined (`) >= 2
	})
	offset := len(m.Console())
	m.SysRq('i')
	m.WaitConsoleAfter(offset, `oscined: API on`, later)
	n.awaitAPI()
	out := n.run("bench", "latency", "--class", "default,interactive,realtime", "--duration", "1s")
	for _, want := range []string{"default under sched_ext, loaded", "interactive under sched_ext, loaded", "realtime under sched_ext, loaded"} {
		if !strings.Contains(out, want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	if strings.Contains(out, "was not measured") || strings.Contains(out, "CPUs of its own:") {
		t.Error("after a killed measurement another is not whole")
	}
	t.Log(out)
}

// testBenchLatency measures a machine on which the real-time workload rt runs:
// every series is there, rt keeps what it was promised, and nothing stays. That
// no cgroup stays the measurement itself verifies, and fails otherwise.
func testBenchLatency(n *testNode) {
	n.t.Helper()
	held, _ := n.placed("rt")
	out := n.run("bench", "latency", "--class", "interactive,realtime", "--load", "cpu", "--duration", "2s", "-o", "json")
	var report classes.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		n.t.Fatalf("%v in\n%s", err, out)
	}
	want := []string{"interactive, alone", "interactive, loaded", "realtime, alone", "realtime, loaded"}
	if len(report.Series) != len(want) {
		n.t.Fatalf("got %d series, want %d:\n%s", len(report.Series), len(want), out)
	}
	for i := range report.Series {
		s := &report.Series[i]
		if s.Name() != want[i] || s.Histogram == nil || s.Histogram.Count() < 20 {
			n.t.Errorf("series %d: got %s, %s, want %s with wake-ups", i, s.Name(), s.Problem, want[i])
			continue
		}
		realtime := s.Class == "realtime"
		if (s.Policy == "FIFO") != realtime || realtime && (s.CPUs == "" || s.CPUs == held) {
			n.t.Errorf("%s: policy %s on CPUs %q, while rt has %s", s.Name(), s.Policy, s.CPUs, held)
		}
		if s.Loaded && (s.Load == nil || s.Load.Units == 0) {
			n.t.Errorf("%s: the load did no work: %+v", s.Name(), s.Load)
		}
		n.t.Logf("%s: %v in half, %v in 99 %%, %v at most, of %d wake-ups, %s, CPUs %q", s.Name(),
			s.Histogram.Quantile(.5), s.Histogram.Quantile(.99), s.Histogram.Max(), s.Histogram.Count(), s.Policy, s.CPUs)
	}
	n.refuse([]string{"bench", "latency", "--duration", "10m"}, "takes longer than 30m")
	n.refuse([]string{"bench", "latency", "--scheduler", "sched_ext"}, "this node's scheduler is stock")
	testBenchLeft(n)
	if text := n.run("describe", "workload", "rt"); strings.Contains(text, "NOT HELD") {
		n.t.Errorf("after the measurement a promise is not held:\n%s", text)
	}
	if log := n.run("logs", "system", "oscined"); strings.Contains(log, "measure wake-ups") {
		n.t.Errorf("a measurement did not end cleanly:\n%s", log)
	}
}

// testBenchLeft leaves a measurement under way: another is refused before, and
// accepted soon after.
func testBenchLeft(n *testNode) {
	n.t.Helper()
	leave := n.beginBench(n.t.Context())
	defer leave()
	short := []string{"bench", "latency", "--class", "default", "--alone", "--duration", "200ms"}
	n.refuse(short, "not possible now", "measures this machine already")
	leave()
	n.awaitOutput("default, alone", short...)
}

// beginBench begins to measure real-time work, until leave is called.
func (n *testNode) beginBench(ctx context.Context) (leave func()) {
	n.t.Helper()
	node, err := (&cli.Env{ConfigPath: n.config}).Client()
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	stream, err := node.Bench.Latency(ctx, connect.NewRequest(&pb.BenchLatencyRequest{
		Classes: []string{"realtime"}, Loads: []string{"cpu"}, Duration: durationpb.New(10 * time.Minute),
	}))
	if err != nil {
		cancel()
		n.t.Fatal(err)
	}
	if !stream.Receive() {
		cancel()
		n.t.Fatalf("a measurement does not begin: %v", stream.Err())
	}
	return func() {
		cancel()
		_ = stream.Close() // it was cut off
	}
}
