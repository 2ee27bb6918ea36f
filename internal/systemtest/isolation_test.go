package systemtest

import (
	"fmt"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/hardware"
)

// classManifest is a workload of a class that only sleeps and answers.
func classManifest(name, class, resources string) string {
	return fmt.Sprintf(`
apiVersion: oscine.dev/v1
kind: Workload
metadata: {name: %s}
spec:
  class: %s
  image: %s
  resources: %s
`, name, class, webImage, resources)
}

// TestIsolation is what a booted machine makes of the classes: promises that
// are held, refusals of what would break one, and nothing left over after many
// workloads have come and gone.
func TestIsolation(t *testing.T) {
	n, _ := resumeNode(t, standard())
	n.apply(classManifest("rt", "realtime", `{cpu: "1", memory: 64Mi}`))
	n.apply(classManifest("answers", "interactive", `{cpu: 500m, memory: 64Mi}`))
	n.apply(classManifest("fills", "batch", `{memory: 64Mi}`))
	for _, name := range []string{"rt", "answers", "fills"} {
		n.awaitPhase("workload", name, "Running", later)
	}
	text := n.run("describe", "workload", "rt")
	for _, want := range []string{"CPUs of its own", "SCHED_FIFO", "memory never reclaimed"} {
		if !strings.Contains(text, want) {
			t.Errorf("describe rt lacks %q:\n%s", want, text)
		}
	}
	for _, name := range []string{"rt", "answers", "fills"} {
		if text := n.run("describe", "workload", name); strings.Contains(text, "NOT HELD") {
			t.Errorf("a promise to %s is not held:\n%s", name, text)
		}
	}
	t.Logf("describe workload rt:\n%s", text)
	testBenchLatency(n)

	// Three of four CPUs may be set aside, the last stays with the system.
	n.apply(classManifest("rt2", "realtime", `{cpu: "2", memory: 64Mi}`))
	n.awaitPhase("workload", "rt2", "Running", later)
	n.apply(classManifest("rt3", "realtime", `{cpu: "1", memory: 64Mi}`))
	n.eventually("the refusal of the last CPU", later, func() (string, bool) {
		text := n.run("describe", "workload", "rt3")
		return text, strings.Contains(text, "no CPU for the system") || strings.Contains(text, "phase: Unplaced")
	})
	for _, name := range []string{"rt2", "rt3"} {
		n.run("delete", "workload", name)
	}
	comeAndGo(n, 8)
	for _, name := range []string{"rt", "answers", "fills"} {
		n.run("delete", "workload", name)
	}
	if left := n.run("get", "workloads", "-o", "name"); left != "" {
		t.Errorf("workloads are left:\n%s", left)
	}
	testDeadline(n)
	testShared(n)
	testHugePages(n)
	// Every CPU is free again: a workload of three gets its three.
	n.apply(classManifest("all", "realtime", `{cpu: "3", memory: 64Mi}`))
	n.awaitPhase("workload", "all", "Running", later)
}

// testHugePages gives out what the Machine file set aside, and no more.
func testHugePages(n *testNode) {
	n.apply(classManifest("large", "interactive", `{memory: 32Mi, hugePages: {2Mi: 24Mi}}`))
	n.awaitPhase("workload", "large", "Running", later)
	n.apply(classManifest("larger", "interactive", `{memory: 32Mi, hugePages: {2Mi: 16Mi}}`))
	n.awaitPhase("workload", "larger", "Unplaced", later)
	if got := n.run("describe", "workload", "larger"); !strings.Contains(got, "huge pages of 2 MiB") || !strings.Contains(got, "8 MiB are free") {
		n.t.Errorf("the refusal of huge pages:\n%s", got)
	}
	n.run("delete", "workload", "larger")
	n.run("delete", "workload", "large")
}

// testShared checks that shared work leaves a CPU that another is given, and
// comes back to it.
func testShared(n *testNode) {
	n.apply(classManifest("shares", "interactive", `{cpu: 100m, memory: 32Mi}`))
	n.awaitPhase("workload", "shares", "Running", later)
	placed, _ := n.placed("shares")
	all, err := hardware.ParseList(placed)
	if err != nil {
		n.t.Fatal(err)
	}
	if all.Len() < 2 {
		n.t.Logf("one CPU cannot be divided")
		return
	}
	on := func(want hardware.Set) {
		n.t.Helper()
		n.eventually("shared work on CPUs "+want.String(), soon, func() (string, bool) {
			got := n.run("exec", "shares", "--", "/web", "facts")
			cpus, _ := n.placed("shares")
			return got + "placed on " + cpus, strings.Contains(got, "Cpus_allowed_list: "+want.String()+"\n") && cpus == want.String()
		})
	}
	on(all)
	n.apply(classManifest("takes", "interactive", `{cpu: "1", cpuPolicy: exclusive, memory: 32Mi}`))
	n.awaitPhase("workload", "takes", "Running", later)
	placed, _ = n.placed("takes")
	taken, err := hardware.ParseList(placed)
	if err != nil || taken.Len() != 1 {
		n.t.Fatalf("one CPU was asked for, got %q %v", placed, err)
	}
	on(all.Minus(taken))
	n.run("delete", "workload", "takes")
	on(all)
	n.run("delete", "workload", "shares")
}

// comeAndGo starts and deletes workloads of all classes.
func comeAndGo(n *testNode, rounds int) {
	classes := []string{"realtime", "interactive", "batch"}
	for round := range rounds {
		name, class := fmt.Sprintf("w%d", round), classes[round%3]
		n.apply(classManifest(name, class, `{cpu: "1", memory: 32Mi}`))
		if round%2 == 0 {
			n.awaitPhase("workload", name, "Running", later)
		}
		n.run("delete", "workload", name)
	}
}
