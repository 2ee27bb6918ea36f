package systemtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// abuser is a workload that does nothing but harm.
func abuser(name, class, verb, resources, rest string) string {
	return fmt.Sprintf(`
apiVersion: oscine.dev/v1
kind: Workload
metadata: {name: %s}
spec:
  class: %s
  image: %s
  args: [%s]
  resources: %s
%s`, name, class, webImage, verb, resources, rest)
}

// TestAbuse is a machine on which everybody misbehaves at once: it stays
// reachable, says who did what, and those that behave go on.
func TestAbuse(t *testing.T) {
	n, _ := resumeNode(t, standard())
	// Without its check: what it does under abuse is asked here.
	web, _, _ := strings.Cut(webManifest(guestWebPort), "  health:")
	n.apply(web)
	n.awaitPhase("workload", "web", "Running", later)
	before := n.mustGet(guestWebPort, "/")

	// Processes and memory without end, in each class.
	for class, cpu := range map[string]string{"realtime": "cpu: 1, ", "interactive": "cpu: 100m, ", "batch": ""} {
		n.apply(abuser("forks-"+class, class, "fork", "{"+cpu+"memory: 96Mi, pids: 48}", ""))
		n.awaitOutput("forksRefused:", "describe", "workload", "forks-"+class)
		n.awaitOutput("LimitReached", "events", "workload", "forks-"+class)
		n.apply(abuser("eats-"+class, class, "eat", "{"+cpu+"memory: 48Mi}", ""))
		n.awaitOutput("more than its memory limit", "describe", "workload", "eats-"+class)
		n.run("delete", "workload", "eats-"+class)
		n.reachable()
	}
	n.run("delete", "workload", "forks-realtime")

	// On top of these, work that spins in each class on every CPU it can get:
	// batch starves, all else goes on, for longer than the kernel's patience
	// with threads that it cannot run.
	n.apply(abuser("batch-spins", "batch", "spin", `{memory: 32Mi}`, ""))
	n.apply(abuser("rt-spins", "realtime", "spin", `{cpu: 1, memory: 32Mi}`, ""))
	n.apply(abuser("all-cores", "interactive", "spin", `{cpu: 500m, memory: 32Mi}`, ""))
	for _, name := range []string{"batch-spins", "rt-spins", "all-cores"} {
		n.awaitPhase("workload", name, "Running", later)
	}
	for range 8 {
		n.reachable()
		time.Sleep(5 * time.Second)
	}
	if got := n.mustGet(guestWebPort, "/"); got != before {
		t.Errorf("the well-behaved workload was restarted: %q, before %q", got, before)
	}
}

// TestFullDisk is a machine whose disk somebody fills: it is bounded and named,
// and all others write on.
func TestFullDisk(t *testing.T) {
	n, _ := resumeNode(t, standard())
	web, _, _ := strings.Cut(webManifest(guestWebPort), "  health:")
	n.apply(web)
	n.awaitPhase("workload", "web", "Running", later)
	before := n.mustGet(guestWebPort, "/")
	// A volume of its own size is the kernel's limit; one without may take what
	// the disk has but the reserve.
	n.apply(abuser("fills-volume", "batch", "fill, /data", `{memory: 64Mi}`, "  volumes: [{name: small, path: /data, size: 16Mi}]\n"))
	n.apply(abuser("fills-layer", "batch", "fill, /data", `{memory: 64Mi, ephemeralStorage: 8Mi}`, "  security: {writableRoot: true}\n"))
	n.awaitOutput("its volume small is full", "describe", "workload", "fills-volume")
	n.awaitOutput("its writable layer is full", "describe", "workload", "fills-layer")
	n.awaitOutput("disk quota exceeded", "logs", "fills-volume")
	n.run("delete", "workload", "fills-layer")
	// What is copied in is bounded as well as what the workload writes.
	n.apply(abuser("bounded", "batch", "sleep", `{memory: 32Mi}`, "  volumes: [{name: bounded, path: /data, size: 2Mi}]\n"))
	n.awaitPhase("workload", "bounded", "Running", later)
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	n.refuse([]string{"cp", big, "bounded:/data/big"}, "quota")
	n.run("delete", "workload", "bounded")
	// Empty files take no bytes, but inodes.
	n.apply(abuser("litters", "batch", "litter, /data", `{memory: 64Mi}`, "  volumes: [{name: litter, path: /data, size: 4Mi}]\n"))
	n.awaitOutput("its volume litter is full: 1024 of 1024 files", "describe", "workload", "litters")
	n.awaitOutput("disk quota exceeded", "logs", "litters")
	n.apply(abuser("fills-disk", "batch", "fill, /data", `{memory: 64Mi}`, "  volumes: [{name: endless, path: /data}]\n"))
	n.awaitOutput("the data partition is nearly full", "describe", "workload", "fills-disk")
	n.awaitOutput("DiskFull", "events", "workload", "fills-disk")
	// The daemon's state can be written, and so can others' volumes.
	n.apply(classManifest("late", "batch", `{memory: 32Mi}`))
	n.awaitPhase("workload", "late", "Running", later)
	n.mustGet(guestWebPort, "/count")
	n.reachable()
	if got := n.mustGet(guestWebPort, "/"); got != before {
		t.Errorf("the well-behaved workload was restarted: %q, before %q", got, before)
	}
	if got := n.run("events", "workload", "web"); strings.Contains(got, "DiskFull") {
		t.Errorf("who writes little was held back:\n%s", got)
	}
	t.Logf("describe workload fills-disk:\n%s", n.run("describe", "workload", "fills-disk"))
	t.Logf("events:\n%s", n.run("events", "--warnings"))
}

// reachable asks the node who it is. The bound is for an emulated machine on a
// busy host; what counts is that there is one.
func (n *testNode) reachable() {
	n.t.Helper()
	began := time.Now()
	n.run("info")
	took := time.Since(began)
	n.t.Logf("the API answered after %v", took.Round(time.Millisecond))
	if took > 30*time.Second {
		n.t.Errorf("the API answered after %v", took)
	}
}
