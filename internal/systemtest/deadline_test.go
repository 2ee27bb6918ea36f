package systemtest

import (
	"fmt"
	"strings"
	"time"
)

// testDeadline reserves processor time to the last slot: what fits is what the
// kernel shows, and the smallest step more is refused with the next step.
func testDeadline(n *testNode) {
	t := n.t
	n.apply(reserving("probe", time.Millisecond))
	n.awaitPhase("workload", "probe", "Running", later)
	isolation, _ := n.object("workload", "probe")["status"].(map[string]any)["isolation"].(map[string]any)
	reserved, _ := isolation["reserved"].(float64)
	bound, _ := isolation["reservable"].(float64)
	if reserved < 0.09 || reserved > 0.1 || bound < 0.5 || bound > 1 {
		t.Fatalf("got %.4f of %.4f CPUs reserved, want a tenth of at most one", reserved, bound)
	}
	n.run("delete", "workload", "probe")

	// The kernel counts in 2^20ths of a CPU, rounded down.
	const unit = 1 << 20
	period := reservationPeriod.Nanoseconds()
	last := ((int64(bound*unit)+1)*period - 1) / unit
	n.apply(reserving("fits", time.Duration(last)))
	n.awaitPhase("workload", "fits", "Running", later)
	want := fmt.Sprintf("policy 6 runtime %d deadline %d period %d", last, period, period)
	if got := n.run("exec", "fits", "--", "/web", "policy"); strings.TrimSpace(got) != want {
		t.Errorf("the kernel schedules it by %q, want %q", got, want)
	}
	text := n.run("describe", "workload", "fits")
	if strings.Contains(text, "NOT HELD") || !strings.Contains(text, "SCHED_DEADLINE") || !strings.Contains(text, "reserved: ") {
		t.Errorf("describe of a reservation to the last slot:\n%s", text)
	}
	n.run("delete", "workload", "fits")

	n.apply(reserving("over", time.Duration(last+period/unit+1)))
	n.awaitPhase("workload", "over", "Unplaced", later)
	text = n.run("describe", "workload", "over")
	for _, want := range []string{"would break a promise", fmt.Sprintf("of %.4f CPUs would be reserved", bound), "shorten spec.resources.deadline.runtime"} {
		if !strings.Contains(text, want) {
			t.Errorf("the refusal lacks %q:\n%s", want, text)
		}
	}
	n.run("delete", "workload", "over")
}

const reservationPeriod = 10 * time.Millisecond

func reserving(name string, runtime time.Duration) string {
	return classManifest(name, "realtime", fmt.Sprintf(`{cpu: "1", memory: 64Mi, deadline: {runtime: %v, period: %v}}`, runtime, reservationPeriod))
}
