package systemtest

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/machine"
	"oscine.dev/oscine/internal/machine/machinetest"
)

// standard is the machine that most tests resume: four processors, huge pages
// set aside, keys that SysRq understands, and room for a device to be plugged
// into. A test that needs another kind makes one more boot.
func standard() nodeKind {
	return nodeKind{
		Options: machine.Options{
			Direct: true, CPUs: "4", KernelArgs: "sysrq_always_enabled",
			ExtraArgs: []string{"-device", "pcie-root-port,id=port9,chassis=9", "-netdev", "user,id=second,net=10.0.3.0/24,restrict=on"},
		},
		spec: "    hugePages: {2Mi: 32Mi}\n",
	}
}

// nodeKind is a machine and lines of its Machine manifest's spec.
type nodeKind struct {
	machine.Options
	spec string
}

// resumeNode resumes a node that was booted with a configuration of its own and
// has the image of the test workloads. It costs seconds; the boot that every
// test of the same kind resumes from is made once for each image.
func resumeNode(t *testing.T, kind nodeKind) (*testNode, *machinetest.Machine) {
	t.Helper()
	machinetest.Need(t)
	kind.Ports = []machine.Port{{Guest: machinetest.APIPort}, {Guest: guestWebPort}}
	m, dir := machinetest.Resume(t, machinetest.Booted{
		Options: kind.Options,
		Key:     kind.spec + sources(t, "vm_test.go", "image_test.go", "testdata/web"),
		Prepare: func(dir string) []byte {
			n := newTestNode(t, dir, loopback(machinetest.APIPort))
			config, err := os.ReadFile(n.machineFile())
			if err != nil {
				t.Fatal(err)
			}
			return append(config, kind.spec...)
		},
		Ready: func(m *machinetest.Machine, dir string) {
			n := openNode(t, dir, m)
			n.run("image", "import", webArchive(t, n.arch))
			n.run("run", webImage, "--", "say", "hello") // so that the programs for it are in memory, and verified
			m.WaitConsole(`oscine-init: oscined is ready`, later)
		},
	})
	return openNode(t, dir, m), m
}

// openNode takes the node's keys from dir, points its context at where the
// machine's API is now, and waits for it.
func openNode(t *testing.T, dir string, m *machinetest.Machine) *testNode {
	t.Helper()
	n := &testNode{t: t, dir: dir, config: filepath.Join(dir, "config"), api: m.Addr(machinetest.APIPort), arch: runtime.GOARCH, reach: m.Addr}
	config, err := client.Load(n.config)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range config.Contexts {
		c.Address = n.api
	}
	if err := config.Save(n.config); err != nil {
		t.Fatal(err)
	}
	n.awaitAPI()
	return n
}

// sources names the content of files and folders.
func sources(t *testing.T, names ...string) string {
	t.Helper()
	h := sha256.New()
	for _, name := range names {
		err := filepath.WalkDir(name, func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			raw, err := os.ReadFile(file)
			fmt.Fprintf(h, "%s %d\n%s", file, len(raw), raw)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// guestWebPort is what the test workloads publish on a booted machine.
const guestWebPort = 80

func (n *testNode) awaitAPI() {
	n.t.Helper()
	n.awaitOutput("Oscine", "info")
}

// TestMachine is a day in the life of a booted machine.
func TestMachine(t *testing.T) {
	n, m := resumeNode(t, standard())
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
	n.awaitRestarted(guestWebPort, before)
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
	testMachineSystem(n)
	if got := n.run("dmesg"); !strings.Contains(got, "Linux version") {
		t.Error("dmesg lacks the kernel's first line")
	}
	if got := n.run("logs", "system", "oscined"); !strings.Contains(got, "oscined: API on") {
		t.Error("the daemon's log lacks its start")
	}
	n.run("shutdown")
	m.WaitOff(later)
}
