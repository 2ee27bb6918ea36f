package systemtest

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/engine/enginetest"
)

// keepsAnswering has clients ask a model without a pause until stop is called: each
// answer is to be that to the request of this file's tests.
func (n *testNode) keepsAnswering(args ...string) (stop func()) {
	var clients sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(150 * time.Millisecond): // each call takes one of the node's connections
				}
				if out, errOut, code := n.try(args...); code != 0 || !strings.Contains(out, "[2,3,4,5]") {
					n.t.Errorf("a request while the model is replaced: exit status %d, %s %s", code, out, errOut)
					return
				}
			}
		})
	}
	return func() {
		close(done)
		clients.Wait()
	}
}

// TestHostedReplacement replaces a model while clients ask without a pause: none of
// their requests fails, and what does not load leaves the old one serving.
func TestHostedReplacement(t *testing.T) {
	d := newDaemon(t)
	n := d.testNode
	write := writing(t, t.TempDir())
	model := func(i int) string { return write("digits.otm", fmt.Sprintf("%sadd\nnumber %d\n", enginetest.Magic, i)) }
	n.run("pack", "install", makeEnginePack(n))
	n.run("serve", model(0))
	request := write("request.json", `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}`)

	stop := n.keepsAnswering("infer", "digits", "-f", request)
	for i := 1; i <= 5; i++ {
		n.run("serve", model(i), "--version", fmt.Sprint(i+1))
	}
	n.refuse([]string{"serve", write("digits.otm", enginetest.Magic+"unknown\n"), "--version", "7"}, "the new manifest is not served", "version 6 still answers", "not a model of the engine")
	stop()
	var st struct {
		Phase, Version string
		Update         struct{ Phase string }
	}
	raw, err := json.Marshal(n.object("model", "digits")["status"])
	if err != nil || json.Unmarshal(raw, &st) != nil || st.Phase != "Running" || st.Version != "6" || st.Update.Phase != "Failed" {
		t.Errorf("status %s, %v", raw, err)
	}
	if got := n.run("events"); !strings.Contains(got, "the new manifest is not served") {
		t.Errorf("no event tells of it:\n%s", got)
	}
}

// TestHostedPackUpgrade installs other versions of an engine's pack while clients ask a
// model without a pause: it goes to each that answers as the one before, none of the
// requests fails, and it stays where it is with those that don't.
func TestHostedPackUpgrade(t *testing.T) {
	d := newDaemon(t)
	n := d.testNode
	write := writing(t, t.TempDir())
	request := write("request.json", `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}`)
	install := func(version string, args ...string) {
		t.Helper()
		n.run("pack", "install", makeEnginePackOf(n, version, args...))
	}
	versions := func(want ...string) {
		t.Helper()
		n.eventually("the packs "+strings.Join(want, ", "), later, func() (string, bool) {
			got := n.run("pack", "list")
			lines := strings.Split(strings.TrimSpace(got), "\n")[1:]
			for i, line := range lines {
				fields := strings.Fields(line)
				lines[i] = fields[1] + " " + fields[2]
			}
			return got, strings.Join(lines, ",") == strings.Join(want, ",")
		})
	}
	install("1.0-1")
	n.run("serve", write("digits.otm", enginetest.Magic+"add\n"), "--memory", "64Mi")
	stop := n.keepsAnswering("infer", "digits", "-f", request)

	install("1.0-2")
	n.awaitOutput("runs on the pack made-up 1.0-2, in place of version 1.0-1", "describe", "model", "digits")
	versions("1.0-2 Installed")

	install("1.0-3", "--adds", "2")
	n.awaitOutput("it does not run on the pack made-up 1.0-3: on made-up inputs its outputs differ", "describe", "model", "digits")
	versions("1.0-3 Installed", "1.0-2 Replaced")
	if got := n.run("pack", "inspect", "made-up"); !strings.Contains(got, "on 1.0-2 still") || !strings.Contains(got, "its outputs differ") {
		t.Errorf("inspect does not tell who stays, and why:\n%s", got)
	}
	n.refuse([]string{"pack", "remove", "made-up"}, "Model/digits runs on the pack made-up 1.0-2")

	install("1.0-4", "--no-such-flag")
	n.awaitOutput("it does not run on the pack made-up 1.0-4", "describe", "model", "digits")
	versions("1.0-4 Installed", "1.0-2 Replaced")
	stop()

	// The next daemon finds the worker on the version that it stays on, and so does the
	// next worker.
	pid := d.pid("model", "digits")
	d.stop(syscall.SIGKILL)
	d.start()
	d.awaitPhase("model", "digits", "Running", soon)
	if again := d.pid("model", "digits"); again != pid {
		t.Errorf("the next daemon started the worker %d, before it was %d", again, pid)
	}
	n.awaitOutput("it does not run on the pack made-up 1.0-4", "describe", "model", "digits")
	stop = n.keepsAnswering("infer", "digits", "-f", request)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.eventually("another worker", later, func() (string, bool) {
		again := d.pid("model", "digits")
		return fmt.Sprint(again), again != pid && again != 0
	})

	install("1.0-5")
	n.awaitOutput("runs on the pack made-up 1.0-5, in place of version 1.0-2", "describe", "model", "digits")
	versions("1.0-5 Installed")
	stop()
	if got := n.run("describe", "model", "digits"); strings.Contains(got, "packUpdate") {
		t.Errorf("it is still said to stay:\n%s", got)
	}
}
