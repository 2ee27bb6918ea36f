package systemtest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"oscine.dev/oscine/internal/linux"
)

// daemon is a hosted oscined of this test, with everything it needs in
// folders of its own.
type daemon struct {
	*testNode
	bin, state, runDir string
	port               int
	command            *exec.Cmd
	ended              <-chan error // of command
	output             *lockedBuffer
}

// lockedBuffer takes a process's output while a test reads it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// awaitWritten waits until a process has written the words.
func (n *testNode) awaitWritten(words string, output *lockedBuffer) {
	n.t.Helper()
	n.eventually(fmt.Sprintf("%q", words), soon, func() (string, bool) {
		text := output.String()
		return text, strings.Contains(text, words)
	})
}

// newDaemon builds the programs and starts the daemon; it skips where that
// cannot work.
func newDaemon(t *testing.T) *daemon {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a daemon with containers: not with -short")
	}
	if os.Geteuid() != 0 {
		t.Skip("starts a daemon with containers: needs root")
	}
	runc := findRunc()
	if runc == "" {
		t.Skip("starts a daemon with containers: no runc: make build makes it")
	}
	d := &daemon{port: freePort(t), bin: t.TempDir(), state: t.TempDir(), output: &lockedBuffer{}}
	d.testNode = newTestNode(t, t.TempDir(), loopback(d.port))
	d.arch, d.reach = runtime.GOARCH, loopback
	var err error
	if d.runDir, err = os.MkdirTemp("/run", "oscine-"); err != nil { // short: sockets lie below
		t.Fatal(err)
	}
	goBuild(t, runtime.GOARCH, d.bin, "oscine.dev/oscine/cmd/oscined", "oscine.dev/oscine/cmd/oscine-log",
		"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2")
	if err := os.Symlink(runc, filepath.Join(d.bin, "runc")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.cleanUp)
	d.start()
	return d
}

func findRunc() string {
	built, err := filepath.Abs("../../out/bin/runc")
	if err != nil {
		return ""
	}
	if _, err := os.Stat(built); err == nil {
		return built
	}
	path, err := exec.LookPath("runc")
	if err != nil {
		return ""
	}
	return path
}

func (d *daemon) start() {
	d.t.Helper()
	d.command = exec.Command(filepath.Join(d.bin, "oscined"), "--hosted", "--config", d.machineFile(), "--listen", loopback(d.port),
		"--state", d.state, "--run", d.runDir, "--logs", filepath.Join(d.state, "log"))
	d.command.Stdout, d.command.Stderr = d.output, d.output
	var err error
	if d.ended, err = startTied(d.command); err != nil {
		d.t.Fatal(err)
	}
	d.awaitAPI()
}

// stop ends the daemon with a signal and waits for it.
func (d *daemon) stop(signal syscall.Signal) {
	d.t.Helper()
	if err := d.command.Process.Signal(signal); err != nil {
		d.t.Fatalf("signal the daemon: %v", err)
	}
	err := <-d.ended
	if signal == syscall.SIGTERM && err != nil {
		d.t.Errorf("the daemon ended with %v on SIGTERM", err)
	}
}

func (d *daemon) cleanUp() {
	defer func() {
		if d.t.Failed() {
			d.t.Logf("the daemon wrote:\n%s", d.output)
		}
	}()
	if d.command.ProcessState == nil {
		names, _, _ := d.try("get", "-o", "name")
		for name := range strings.FieldsSeq(names) {
			d.try("delete", name)
		}
		d.stop(syscall.SIGTERM)
	}
	for _, dir := range []string{d.runDir, d.state} {
		if err := linux.UnmountBelow(dir); err != nil {
			d.t.Error(err)
		}
	}
	if err := os.RemoveAll(d.runDir); err != nil {
		d.t.Error(err)
	}
}

// TestHosted is a day in the life of a daemon on somebody else's Linux.
func TestHosted(t *testing.T) {
	d := newDaemon(t)
	port := freePort(t)
	d.run("image", "import", webArchive(t, d.arch))
	testRuns(d.testNode)
	testInteractive(d.testNode)
	testWorkload(d.testNode, port)
	testHealth(d.testNode, port)
	testRoles(d.testNode)
	testMetrics(d.testNode)
	testShared(d.testNode)
	testLive(d.testNode)
	if out := d.run("bench", "latency", "--class", "default,batch", "--load-threads", "1", "--duration", "200ms"); !strings.Contains(out, "batch, loaded") {
		t.Errorf("the measured classes:\n%s", out)
	}

	// Neither a clean end nor a crash of the daemon stops the workload.
	before := d.mustGet(port, "/")
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		d.stop(signal)
		if got := d.mustGet(port, "/"); got != before {
			t.Errorf("%v of the daemon restarted the workload: %q, before %q", signal, got, before)
		}
		d.start()
		d.awaitPhase("workload", "web", "Running", soon)
		if got := d.mustGet(port, "/"); got != before {
			t.Errorf("the daemon started after %v restarted the workload: %q, before %q", signal, got, before)
		}
	}
	testConfiguration(d, port)
	testStopped(d, port)
	d.refuse([]string{"reboot"}, "hosted on another Linux")
	testConflicts(d.testNode, port)
	d.run("delete", "workload", "web")
	if _, err := d.get(port, "/"); err == nil {
		t.Error("the deleted workload answers")
	}
	d.refuse([]string{"logs", "web"}, "not found")
}

// testStopped stops the workload, which stays so when the daemon starts again,
// and starts and restarts it.
func testStopped(d *daemon, port int) {
	d.t.Helper()
	if out := d.run("stop", "web"); out != "workload/web stopped\n" {
		d.t.Errorf("stop said %q", out)
	}
	d.stop(syscall.SIGKILL)
	d.start()
	d.awaitPhase("workload", "web", "Stopped", soon)
	if _, err := d.get(port, "/"); err == nil {
		d.t.Error("the stopped workload answers")
	}
	if out := d.run("ps"); strings.Contains(out, "web") {
		d.t.Errorf("the stopped workload runs:\n%s", out)
	}
	d.run("start", "web")
	d.awaitPhase("workload", "web", "Running", soon)
	before := d.mustGet(port, "/")
	d.run("restart", "web")
	d.awaitRestarted(port, before)
	if out := d.run("logs", "web", "--previous"); out == "" {
		d.t.Error("nothing is known of the run before")
	}
}

// testConflicts applies what contradicts what runs.
func testConflicts(n *testNode, port int) {
	t := n.t
	file := filepath.Join(t.TempDir(), "other.yaml")
	text := strings.ReplaceAll(webManifest(port), "{name: web}", "{name: other}") + "---" + strings.ReplaceAll(webManifest(freePort(t)), "{name: web}", "{name: third}")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	n.refuse([]string{"apply", "-f", file}, "Workload/other", fmt.Sprintf("tcp/%d is taken by Workload/web", port))
	if got := n.run("get"); strings.Contains(got, "third") {
		t.Errorf("half of a refused file was applied:\n%s", got)
	}
}
