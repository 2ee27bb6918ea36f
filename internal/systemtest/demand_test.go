package systemtest

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"oscine.dev/oscine/internal/serve/engine/enginetest"
)

// TestHostedOnDemand loads models by their requests, unloads them when they are
// idle or others need the room, and takes a loaded one over a restart.
func TestHostedOnDemand(t *testing.T) {
	d := newDaemon(t)
	n := d.testNode
	write := writing(t, t.TempDir())
	n.run("pack", "install", makeEnginePack(n))
	request := write("request.json", `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}`)
	ask := func(model string) {
		t.Helper()
		if got := n.run("infer", model, "-f", request); !strings.Contains(got, "[2,3,4,5]") {
			t.Errorf("%s answers\n%s", model, got)
		}
	}
	most := fmt.Sprint(memTotal(t) / 10 * 6) // two of them do not fit
	serve := func(name string, args ...string) {
		t.Helper()
		n.run(append([]string{"serve", write(name+".otm", enginetest.Magic+"add\n"+name+"\n"), "--memory", most}, args...)...)
	}
	status := func(name string) map[string]any {
		t.Helper()
		st, _ := n.object("model", name)["status"].(map[string]any)
		return st
	}

	serve("a", "--on-demand", "--idle-timeout", "2s")
	if st := status("a"); st["phase"] != "Idle" || st["pid"] != nil || st["placement"] != nil {
		t.Errorf("before a request: %v", st)
	}
	ask("a")
	if st := status("a"); st["phase"] != "Running" || st["loads"] != 1.0 {
		t.Errorf("after a request: %v", st)
	}
	n.run("wait", "model", "a", "--for", "phase=Idle", "--timeout", "30s")
	if got := n.run("get", "models"); !strings.Contains(got, "Idle") {
		t.Errorf("get models:\n%s", got)
	}
	ask("a") // again

	// The least recently used makes room, also for what is always loaded.
	serve("b", "--on-demand", "--idle-timeout", "1h")
	ask("b")
	if a, b := status("a"), status("b"); a["phase"] != "Idle" || a["evictions"] != 1.0 || b["phase"] != "Running" {
		t.Errorf("b was loaded: a %v, b %v", a, b)
	}
	serve("pinned")
	if st := status("b"); st["phase"] != "Idle" || st["evictions"] != 1.0 {
		t.Errorf("a pinned model was served: b %v", st)
	}
	ask("pinned")
	n.refuse([]string{"infer", "b", "-f", request}, "memory")
	if st := status("pinned"); st["phase"] != "Running" {
		t.Errorf("a pinned model had to go: %v", st)
	}
	n.run("delete", "model", "pinned")

	// The next daemon finds the worker loaded.
	ask("b")
	pid := n.pid("model", "b")
	d.stop(syscall.SIGTERM)
	d.start()
	n.run("wait", "model", "b", "--for", "phase=Running", "--timeout", "30s")
	if got := n.pid("model", "b"); got != pid || pid == 0 {
		t.Errorf("the worker is %d after the restart, was %d", got, pid)
	}
	ask("b")
	ask("a") // takes its room again
	if st := status("b"); st["phase"] != "Idle" {
		t.Errorf("a was loaded: b %v", st)
	}
}

// memTotal is the memory of the machine in bytes.
func memTotal(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	var kib int64
	if _, err := fmt.Sscanf(string(text), "MemTotal: %d kB", &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}
