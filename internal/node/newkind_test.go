package node_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/api"
	"oscine.dev/oscine/internal/cli"
	"oscine.dev/oscine/internal/node"
	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/object"
)

// A kind of one file, one row and one controller goes the way of every other:
// applied, shown, described, reported, logged, changed, deleted and kept over a
// restart, by the real commands over the real API.
func TestNewKindNeedsOneFileAndOneRow(t *testing.T) {
	kinds := append(object.Kinds(), beaconKind()) // the row
	h := newHarness(t, kinds)

	const name = "a-name-of-as-many-characters-as-a-name-may-have-at-most-63-here"
	file := h.write("beacon.yaml", "apiVersion: oscine.dev/v1\nkind: Beacon\nmetadata: {name: "+name+"}\nspec: {text: hello}\n")
	h.fails("text: is required", "apply", "-f", h.write("bad.yaml", "apiVersion: oscine.dev/v1\nkind: Beacon\nmetadata: {name: x}\nspec: {}\n"))
	h.fails("must be Machine, Workload, Model, Secret or Beacon", "apply", "-f", h.write("pod.yaml", "apiVersion: oscine.dev/v1\nkind: Pod\n"))
	h.says("beacon/"+name+" created (dry run)", "apply", "--dry-run", "-f", file)
	h.says("beacon/"+name+" created", "apply", "-f", file)
	h.prints(`KIND +NAME +PHASE .*BLINKS +MESSAGE\nBeacon +`+name+` +Running .* [1-9]\d* `, "get", "bcn")
	h.prints(`Beacon +`+name+` +Running`, "get")
	h.prints(`(?s)Beacon `+name+`\n.*interval: 10ms\n.*text: hello\n.*blinks: [1-9].*phase: Running\n.*Started +blinks every 10ms`, "describe", name)
	h.prints(`beacon/`+name+` +Started +1 +blinks every 10ms`, "events", "beacon", name)
	h.prints(`hello 1\n`, "logs", "beacon", name)
	h.prints(`hello \d+\n`, "logs", name, "--tail", "1")
	h.prints(`^beacon\n`, "__complete", "get", "b")
	h.prints(name+`\n`, "__complete", "get", "beacon", "a-")
	h.says("beacon/"+name+" unchanged", "apply", "-f", h.write("again.yaml", h.run("get", "beacon/"+name, "-o", "yaml")))
	h.says("beacon/"+name+" updated", "apply", "-f", h.write("changed.yaml", strings.ReplaceAll(h.read(file), "hello", "ahoy")))
	h.prints(`ahoy \d+\n`, "logs", name)
	h.fails("is the log of an object", "logs", "system", "beacon-"+name)

	h.restart()
	h.prints(`Beacon +`+name+` +Running`, "get", "beacons")
	h.prints(`Started +3 +blinks`, "events", "beacon", name)

	h.says("beacon/"+name+" deleted", "delete", "beacon", name)
	h.fails("not found", "get", "beacon", name)
	h.fails("not found", "logs", "beacon", name)
	h.fails("not found", "delete", "beacon", name)
	h.prints("^KIND.*\n$", "get", "beacons")
}

// A node refuses to open without a controller for a kind that it stores.
func TestEveryKindHasAController(t *testing.T) {
	_, err := node.OpenWithoutKernel(t.Context(), t.TempDir(), append(object.Kinds(), beaconKind()), &object.Machine{}, nil)
	if err == nil || !strings.Contains(err.Error(), "nothing runs objects of the kind") {
		t.Errorf("got %v", err)
	}
}

// harness is a node without a kernel behind the API, and the commands.
type harness struct {
	t       *testing.T
	dir     string
	kinds   object.Table
	address string
	machine *object.Machine
	stop    func() // the node and its server; nil where none runs
	log     *slog.Logger
	// controller makes those of a kind; logs is the folder of the objects' logs.
	controller func(kind object.Kind, logs string) reconcile.NewController

	in      string       // of the commands
	printed bytes.Buffer // by all commands
}

func newHarness(t *testing.T, kinds object.Table) *harness {
	return newHarnessWith(t, kinds, slog.New(slog.DiscardHandler), func(_ object.Kind, logs string) reconcile.NewController { return newLamp(logs) })
}

func newHarnessWith(t *testing.T, kinds object.Table, log *slog.Logger, controller func(object.Kind, string) reconcile.NewController) *harness {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &harness{t: t, dir: t.TempDir(), kinds: kinds, address: l.Addr().String(), log: log, controller: controller}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	h.run("config", "generate", "test", "--with-key", "--output", h.dir, "--address", h.address)
	if h.machine, err = object.ParseMachine(strings.NewReader(h.read(filepath.Join(h.dir, "test.yaml")))); err != nil {
		t.Fatal(err)
	}
	h.restart()
	t.Cleanup(func() { h.stop() })
	return h
}

// restart ends the node that runs, if any, and begins another on its state.
func (h *harness) restart() {
	h.t.Helper()
	if h.stop != nil {
		h.stop()
	}
	state := filepath.Join(h.dir, "state")
	controllers := map[object.Kind]reconcile.NewController{}
	for _, row := range h.kinds.Stored() {
		controllers[row.Kind] = h.controller(row.Kind, filepath.Join(state, "log"))
	}
	n, err := node.OpenWithoutKernel(h.t.Context(), state, h.kinds, h.machine, controllers)
	if err != nil {
		h.t.Fatal(err)
	}
	server := api.NewServer(n, h.log)
	l, err := net.Listen("tcp", h.address)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.WithoutCancel(h.t.Context()))
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, l) }()
	h.stop = func() {
		end()
		if err := errors.Join(<-served, n.CloseWithoutKernel()); err != nil {
			h.t.Errorf("stop: %v", err)
		}
	}
}

// command runs a command and returns its exit status and what it printed.
func (h *harness) command(args ...string) (status int, out, errOut string) {
	var stdout, stderr bytes.Buffer
	env := &cli.Env{In: strings.NewReader(h.in), Out: &stdout, Err: &stderr, Kinds: h.kinds}
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	status = env.Run(ctx, append([]string{"--config", filepath.Join(h.dir, "config")}, args...))
	h.printed.WriteString(stdout.String() + stderr.String())
	return status, stdout.String(), stderr.String()
}

// run runs a command that succeeds.
func (h *harness) run(args ...string) string {
	h.t.Helper()
	status, out, errOut := h.command(args...)
	if status != 0 {
		h.t.Fatalf("oscine %s: exit status %d: %s", strings.Join(args, " "), status, errOut)
	}
	return out
}

// says runs a command that succeeds and says one thing.
func (h *harness) says(want string, args ...string) {
	h.t.Helper()
	if got := strings.TrimSpace(h.run(args...)); got != want {
		h.t.Errorf("oscine %s: got %q, want %q", strings.Join(args, " "), got, want)
	}
}

// prints runs a command until it succeeds and prints what matches a pattern:
// what was asked for takes a moment.
func (h *harness) prints(pattern string, args ...string) {
	h.t.Helper()
	re := regexp.MustCompile(pattern)
	pause, deadline := 50*time.Millisecond, time.Now().Add(10*time.Second)
	for {
		status, out, errOut := h.command(args...)
		if status == 0 && re.MatchString(out) {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("oscine %s: exit status %d, %s\n%s\nwant %s", strings.Join(args, " "), status, errOut, out, pattern)
		}
		time.Sleep(pause)
		pause *= 2
	}
}

// fails runs a command that says why it fails.
func (h *harness) fails(want string, args ...string) {
	h.t.Helper()
	if status, out, errOut := h.command(args...); status == 0 || !strings.Contains(errOut, want) {
		h.t.Errorf("oscine %s: exit status %d, want %q in: %s%s", strings.Join(args, " "), status, want, errOut, out)
	}
}

func (h *harness) write(name, text string) string {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return path
}

func (h *harness) read(path string) string {
	h.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(text)
}
