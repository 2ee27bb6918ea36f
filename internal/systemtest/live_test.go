package systemtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testLive looks at a node that runs the workload web, as a reader would.
func testLive(n *testNode) {
	t := n.t
	if got := n.run("top", "--once", "--every", "200ms"); !strings.Contains(got, "package 0") || !strings.Contains(got, "% busy") {
		t.Errorf("top shows no machine:\n%s", got)
	}
	for _, args := range [][]string{{"events"}, {"events", "workload", "web"}, {"events", "workload/web", "-o", "json"}, {"describe", "web"}} {
		if got := n.run(args...); !strings.Contains(got, "Started") || !strings.Contains(got, "on CPUs ") {
			t.Errorf("oscine %v lacks the start of web:\n%s", args, got)
		}
	}
	recording := filepath.Join(t.TempDir(), "node.tar.zst")
	if got := n.run("hardware", "record", "-o", recording); !strings.Contains(got, " files; look at it") {
		t.Errorf("hardware record says %q", got)
	}
	if here, there := n.run("hardware", "--root", recording), n.run("hardware"); strings.Count(here, "\n") < 4 || strings.Split(here, "\n")[0] != strings.Split(there, "\n")[0] {
		t.Errorf("the recording of the node shows\n%s, the node\n%s", here, there)
	}
	_, errOut, code := n.try("events", "--device", "gpu99")
	if code != 0 || !strings.Contains(errOut, "no such events") {
		t.Errorf("events of a device that is not there: %d, %q", code, errOut)
	}
}

// TestNodeStopsWhileWatched ends a daemon under those who watch it: they are
// told, and the daemon does not wait for them.
func TestNodeStopsWhileWatched(t *testing.T) {
	d := newDaemon(t)
	oscine := filepath.Join(d.bin, "oscine")
	goBuild(t, d.arch, d.bin, "oscine.dev/oscine/cmd/oscine")
	d.apply(classManifest("waits", "batch", `{cpu: "1000"}`))
	d.awaitPhase("workload", "waits", "Unplaced", soon)
	watchers := map[string]*exec.Cmd{}
	for command, shows := range map[string]string{"hardware --watch": "package 0", "events -f": "workload/waits", "get --watch": "workload/waits", "top": "q ends"} {
		c := exec.Command(oscine, append([]string{"--config", d.config}, strings.Fields(command)...)...)
		_, terminal, seen := openTerminal(t)
		c.Stdout, c.Stderr = terminal, &lockedBuffer{}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		watchers[command] = c
		d.awaitWritten(shows, seen)
	}
	begin := time.Now()
	d.stop(syscall.SIGTERM)
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("the daemon took %v to stop: it waited for its watchers", took)
	}
	for command, c := range watchers {
		err := c.Wait()
		var ended *exec.ExitError
		if told := c.Stderr.(*lockedBuffer).String(); !errors.As(err, &ended) || ended.ExitCode() != 7 || !strings.Contains(told, "again") {
			t.Errorf("oscine %s: ended with %v and %q, want told to try again", command, err, told)
		}
	}
}

// TestDeviceIsPulled gives a workload a network card and pulls it out of the
// running machine: an event says so, and the workload waits for another.
func TestDeviceIsPulled(t *testing.T) {
	n, m := resumeNode(t, standard())
	bin := t.TempDir()
	goBuild(t, runtime.GOARCH, bin, "oscine.dev/oscine/cmd/oscine")
	watch := exec.Command(filepath.Join(bin, "oscine"), "--config", n.config, "hardware", "--watch")
	seen := &lockedBuffer{}
	watch.Stdout, watch.Stderr = seen, seen
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	n.awaitWritten("package 0", seen) // so that it sees what comes
	m.Plug("virtio-net-pci,id=card,bus=port9,netdev=second,romfile=")
	var card string
	n.eventually("the card on the map", later, func() (string, bool) {
		card = ""
		var shown struct {
			Interfaces []struct{ Name, Address string }
		}
		text := n.run("hardware", "-o", "json")
		if err := json.Unmarshal([]byte(text), &shown); err != nil {
			t.Fatal(err)
		}
		for _, i := range shown.Interfaces {
			if !strings.HasPrefix(i.Address, "0000:00:") {
				card = i.Name
			}
		}
		return fmt.Sprint(shown.Interfaces), card != ""
	})
	n.apply(fmt.Sprintf(`
apiVersion: oscine.dev/v1
kind: Workload
metadata: {name: web}
spec:
  image: %s
  resources:
    cpu: 100m
    devices: [{name: card, selector: 'device.attributes["oscine.dev"].kind == "nic" && device.attributes["oscine.dev"].name == "%s"'}]
`, webImage, card))
	n.awaitPhase("workload", "web", "Running", later)
	m.Unplug("card")
	n.awaitPhase("workload", "web", "Unplaced", later)

	// An event can come later than the phase that it reports.
	for _, want := range []string{"device " + card + " is gone", "  Displaced  ", "  DeviceRemoved  ", "  Unplaced  "} {
		n.awaitOutput(want, "describe", "web")
	}
	for _, want := range []string{"DeviceAdded", "DeviceRemoved"} {
		n.awaitOutput(want, "events", "--device", card)
	}
	for _, want := range []string{card + "  added: network", card + "  removed: network"} {
		n.awaitWritten(want, seen)
	}

	if got := n.run("top", "--once"); !strings.Contains(got, "package 0") {
		t.Errorf("top of the booted machine:\n%s", got)
	}
	if err := watch.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	if err := watch.Wait(); err != nil {
		t.Errorf("hardware --watch, interrupted: %v", err)
	}

	// With the card back the workload runs again by itself.
	m.Plug("virtio-net-pci,id=card2,bus=port9,netdev=second,romfile=")
	n.awaitPhase("workload", "web", "Running", later)
}
