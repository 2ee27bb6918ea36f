package systemtest

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/machine"
	"oscine.dev/oscine/internal/machine/machinetest"
)

// bootNode boots a machine with a fresh configuration, to which o.Config adds
// lines of the Machine's spec, and waits for its API.
func bootNode(t *testing.T, o machine.Options, flags ...string) (*testNode, *machinetest.Machine) {
	t.Helper()
	machinetest.Need(t)
	api, web := freePort(t), freePort(t)
	n := newTestNode(t, loopback(api), flags...)
	n.arch = runtime.GOARCH
	n.reach = func(int) string { return loopback(web) }
	config, err := os.ReadFile(n.machineFile())
	if err != nil {
		t.Fatal(err)
	}
	o.Config = append(config, o.Config...)
	o.Ports = append(o.Ports, machine.Port{Host: api, Guest: 7443}, machine.Port{Host: web, Guest: guestWebPort})
	m := machinetest.Start(t, o)
	n.awaitAPI()
	return n, m
}

// guestWebPort is what the test workloads publish on a booted machine.
const guestWebPort = 80

func (n *testNode) awaitAPI() {
	n.t.Helper()
	n.eventually("the API", later, func() string {
		_, errOut, code := n.try("info")
		if code != 0 {
			return errOut
		}
		return ""
	})
}

// TestMachine is a day in the life of a booted machine.
func TestMachine(t *testing.T) {
	n, m := bootNode(t, machine.Options{Direct: true, KernelArgs: "sysrq_always_enabled"})
	n.run("image", "import", webArchive(t, n.arch))
	testRuns(n)
	testWorkload(n, guestWebPort)
	testHealth(n, guestWebPort)
	testRoles(n)

	// Everything but PID 1 is killed at once, and comes back.
	before := n.mustGet(guestWebPort, "/")
	offset := len(m.Console())
	m.SysRq('i')
	m.WaitConsoleAfter(offset, `oscined: API on`, later)
	n.awaitAPI()
	n.eventually("the workload started anew", later, func() string {
		if got, err := n.get(guestWebPort, "/"); err != nil || got == before {
			return fmt.Sprintf("still %q, %v", got, err)
		}
		return ""
	})
	before = n.mustGet(guestWebPort, "/")

	// The machine starts again; the workload comes back with its volume.
	offset = len(m.Console())
	n.run("reboot")
	m.WaitConsoleAfter(offset, `oscined: API on`, later)
	n.awaitAPI()
	n.awaitPhase("workload", "web", "Running", later)
	if got := n.mustGet(guestWebPort, "/"); got == before {
		t.Errorf("the workload survived a reboot: %q", got)
	}
	if got := n.mustGet(guestWebPort, "/count"); got != "2" {
		t.Errorf("count after a reboot: got %q, want 2", got)
	}
	if got := n.run("delete", "workload", "web"); !strings.Contains(got, "workload/web deleted") {
		t.Errorf("delete: got %q", got)
	}
	n.run("image", "remove", webImage)
	if got := n.run("dmesg"); !strings.Contains(got, "Linux version") {
		t.Error("dmesg lacks the kernel's first line")
	}
	if got := n.run("logs", "system", "oscined"); !strings.Contains(got, "oscined: API on") {
		t.Error("the daemon's log lacks its start")
	}
	n.run("shutdown")
	m.WaitOff(later)
}
