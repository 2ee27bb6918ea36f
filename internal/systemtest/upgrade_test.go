package systemtest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"oscine.dev/oscine/internal/image"
	"oscine.dev/oscine/internal/machine"
	"oscine.dev/oscine/internal/machine/machinetest"
	"oscine.dev/oscine/internal/serve/engine/enginetest"
	"oscine.dev/oscine/internal/update/repository"
)

const (
	// longVariable switches on the tests of releases that take long to fail; make
	// test-upgrade sets it.
	longVariable = "OSCINE_UPGRADE_TESTS"
	// cutsVariable says how often the power is cut; make test-powercut sets it.
	cutsVariable = "OSCINE_POWERCUTS"
	// hostOfGuest is this computer as a guest sees it (QEMU's user network).
	hostOfGuest = "10.0.2.2"
	gateFile    = "gate-port"
)

// upgradable resumes a node that was started by firmware and boot loader, and can
// go to other releases: those of the publisher, whose folder the test serves at
// source. Its gate asks a server of the test, which says no while refuse is set.
func upgradable(t *testing.T) (n *testNode, m *machinetest.Machine, p *publisher, source string, refuse *atomic.Bool) {
	t.Helper()
	m, dir := resumeUpgradable(t)
	n, p, refuse = openNode(t, dir, m), openPublisher(t, dir), &atomic.Bool{}
	raw, err := os.ReadFile(filepath.Join(dir, gateFile))
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, "127.0.0.1:"+string(raw), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if refuse.Load() {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
		}
	}))
	return n, m, p, forGuests(t, serveOn(t, loopback(0), http.FileServer(http.Dir(p.dir)))), refuse
}

// forGuests is the URL of a server on this computer as guests reach it.
func forGuests(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return "http://" + net.JoinHostPort(hostOfGuest, port)
}

// resumeUpgradable resumes the machine of upgradable. In dir are the files of its node and
// its publisher.
func resumeUpgradable(t *testing.T) (m *machinetest.Machine, dir string) {
	t.Helper()
	machinetest.Need(t)
	options := machine.Options{CPUs: "2", Ports: []machine.Port{{Guest: machinetest.APIPort}, {Guest: guestWebPort}}}
	return machinetest.Resume(t, machinetest.Booted{
		Options: options,
		Key:     "upgrade" + sources(t, "upgrade_test.go", "releases_test.go", "image_test.go", "testdata/web"),
		Prepare: func(dir string) []byte {
			n := newTestNode(t, dir, loopback(machinetest.APIPort))
			p := newPublisher(t, dir)
			config, err := os.ReadFile(n.machineFile())
			if err != nil {
				t.Fatal(err)
			}
			gate := freePort(t)
			if err := os.WriteFile(filepath.Join(dir, gateFile), []byte(strconv.Itoa(gate)), 0o600); err != nil {
				t.Fatal(err)
			}
			return fmt.Appendf(config, "    update:\n        root: '%s'\n        gate: {deadline: 10m, http: ['http://%s:%d/ready']}\n",
				strings.ReplaceAll(p.root(), "\n", " "), hostOfGuest, gate)
		},
		Ready: func(m *machinetest.Machine, dir string) {
			n := openNode(t, dir, m)
			n.run("image", "import", webArchive(t, n.arch))
			n.apply(webManifest(guestWebPort))
			n.awaitPhase("workload", "web", "Running", later)
			m.WaitConsole(`oscine-init: slot root-a is good`, later)
		},
	})
}

// serveOn serves a handler on this computer until the test ends.
func serveOn(t *testing.T, address string, handler http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	t.Cleanup(func() { server.Close() })
	go func() { _ = server.Serve(l) }() // ends with Close
	return l.Addr().String()
}

// wentBack upgrades to a release that does not work, and checks that the version
// before serves again, that the command failed and says why, and so do the history
// and the events.
func (n *testNode) wentBack(source, version string, words ...string) {
	n.t.Helper()
	began := time.Now()
	before := n.run("upgrade", "status")
	_, said, code := n.try("upgrade", source, "--to", version, "--gate-deadline", "30s", "--wait=20m")
	if code != 1 {
		n.t.Errorf("oscine upgrade to %s: exit status %d, want 1\n%s", version, code, said)
	}
	n.t.Logf("%s: the version before serves again after %v:\n%s", version, time.Since(began).Round(time.Second), said)
	n.awaitPhase("workload", "web", "Running", later)
	history, events, status := n.run("upgrade", "history"), n.run("events", "--warnings"), n.run("upgrade", "status")
	for _, word := range words {
		for what, text := range map[string]string{"the command": said, "the history": history, "the events": events, "the status": status} {
			if !strings.Contains(text, word) {
				n.t.Errorf("%s: %s lacks %q:\n%s", version, what, word, text)
			}
		}
	}
	if !strings.Contains(status, "Refused "+version) {
		n.t.Errorf("%s is not refused:\n%s", version, status)
	}
	if got, want := firstLine(status), firstLine(before); got != want {
		n.t.Errorf("after %s: %q runs, before %q", version, got, want)
	}
	n.refuse([]string{"upgrade", source, "--to", version}, append([]string{"failed here before"}, words...)...)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return strings.Join(strings.Fields(line), " ")
}

// TestUpgradeMachine goes to a release whose gate fails and back by itself, then
// to the same release for good, with a workload that is stopped in order. The release
// brings an engine and a model that only it has.
func TestUpgradeMachine(t *testing.T) {
	n, m, p, source, refuse := upgradable(t)
	model := filepath.Join(t.TempDir(), "digits.otm")
	if err := os.WriteFile(model, []byte(enginetest.Magic+"add\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.publishWith(machinetest.ImageOf(t, worksVersion), repository.Release{Packs: []string{makeEnginePack(n)}, Models: []string{model}})
	plan := n.run("upgrade", source, "--dry-run")
	for _, line := range []string{image.DefaultVersion + " would be replaced by " + worksVersion, "fetch the pack made-up.erofs: ", "fetch the model digits.otm: "} {
		if !strings.Contains(plan, line) {
			t.Errorf("--dry-run lacks %q:\n%s", line, plan)
		}
	}
	served := filepath.Join(t.TempDir(), "model.yaml")
	if err := os.WriteFile(served, []byte("apiVersion: oscine.dev/v1\nkind: Model\nmetadata: {name: digits}\nspec: {source: 'release:digits.otm'}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.refuse([]string{"apply", "-f", served}, "the running release brings no model file digits.otm")
	refuse.Store(true)
	n.wentBack(source, worksVersion, "503 Service Unavailable")
	refuse.Store(false)
	n.eventually("the pack of the failed release to go", later, func() (string, bool) {
		got := n.run("pack", "list")
		return got, !strings.Contains(got, "made-up")
	})

	n.run("upgrade", "lock", "training", "--reason", "epoch 7 of 9")
	n.run("upgrade", source, "--force")
	n.awaitOutput("lock training is held by admin: epoch 7 of 9", "upgrade", "status")
	offset := len(m.Console())
	n.run("upgrade", "unlock", "training")
	// An emulated kernel may stall: then the loader tries it again.
	m.WaitConsoleAfter(offset, `oscine-init: slot root-b on vda3 \(oscine_`+worksVersion+`\+\d-\d\.efi\)`, later)
	m.WaitConsoleAfter(offset, `oscine-init: slot root-b is good: oscine_`+worksVersion+`\+\d-\d\.efi is now oscine_`+worksVersion+`\.efi`, later)
	n.awaitAPI()
	n.awaitOutput(" good ", "upgrade", "history")
	n.awaitPhase("workload", "web", "Running", later)
	n.run("apply", "-f", served)
	n.awaitPhase("model", "digits", "Running", later)
	if got := n.run("pack", "inspect", "made-up"); !strings.Contains(got, "with release") {
		t.Errorf("the pack: got %s", got)
	}
	info := n.run("info")
	for _, line := range []string{worksVersion + ", good, running", image.DefaultVersion + ", good"} {
		if !strings.Contains(info, line) {
			t.Errorf("oscine info lacks %q:\n%s", line, info)
		}
	}
	n.refuse([]string{"upgrade", source, "--to", worksVersion, "--dry-run"}, "runs already")
}

// TestUpgradeToBroken goes to releases that fail in every way, each of which ends
// with the version before.
func TestUpgradeToBroken(t *testing.T) {
	if os.Getenv(longVariable) != "1" {
		t.Skipf("waits for releases to fail: set %s=1, or use make test-upgrade", longVariable)
	}
	n, _, p, source, _ := upgradable(t)
	works := machinetest.ImageOf(t, worksVersion)
	p.publishAltered(works, panicsVersion, "rdinit=/nowhere")
	n.wentBack(source, panicsVersion, "did not get as far as its data partition")
	p.publishAltered(works, isolatedVersion, "module_blacklist=virtio_net")
	n.wentBack(source, isolatedVersion, "network: no interface has an address")
	p.publishDaemon(crashesVersion, "crashes")
	n.wentBack(source, crashesVersion, "oscined ended 2 times")
	p.publishDaemon(hangsVersion, "hangs")
	n.wentBack(source, hangsVersion, "oscined ended 2 times")
}

// TestUpgradePowerCut cuts the power at random moments of an upgrade. The machine
// comes up each time, and the upgrade ends well by itself or when it is asked for
// again.
func TestUpgradePowerCut(t *testing.T) {
	cuts, err := strconv.Atoi(os.Getenv(cutsVariable))
	if err != nil {
		t.Skipf("cuts the power of a machine: set %s=1 or more, or use make test-powercut", cutsVariable)
	}
	for i := range cuts {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			n, m, p, source, _ := upgradable(t)
			p.publishImage(machinetest.ImageOf(t, worksVersion))
			n.run("upgrade", source)
			// Writing takes some seconds, and the boots that follow some more.
			pause := time.Duration(rand.Int64N(int64(30 * time.Second)))
			if cuts == 1 {
				pause = 2 * time.Second // while the slot is written
			}
			time.Sleep(pause)
			stage := "restarting"
			if out, _, code := n.try("upgrade", "status"); code == 0 {
				stage = out
			}
			if err := m.Kill(); err != nil {
				t.Fatal(err)
			}
			t.Logf("power was cut after %v, at:\n%s", pause, stage)
			m.Restart()
			n = openNode(t, n.dir, m)
			n.eventually("the upgrade to end well", 2*later, func() (string, bool) {
				out, said, code := n.try("upgrade", "status")
				if strings.Contains(out, worksVersion+", good, running") {
					return out, true
				}
				if code == 0 && (strings.Contains(out, "failed") || !strings.Contains(out, "Upgrade")) {
					n.run("upgrade", source, "--force")
				}
				return out + said, false
			})
			n.awaitPhase("workload", "web", "Running", later)
		})
	}
	t.Logf("%d power cuts, each with a bootable version and an upgrade that ended well", cuts)
}
