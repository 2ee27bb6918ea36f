package systemtest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/cli"
)

// testNode is a node under test and the client configuration for it.
type testNode struct {
	t      testing.TB
	dir    string // holds the Machine file, the authority and the client configuration
	arch   string
	config string
	api    string // address
	// reach returns where a port that a workload publishes is found.
	reach func(hostPort int) string
}

// newTestNode makes keys and a Machine file in dir for a node whose API will be
// at address.
func newTestNode(t testing.TB, dir, address string) *testNode {
	t.Helper()
	n := &testNode{t: t, dir: dir, config: filepath.Join(dir, "config"), api: address}
	n.run("config", "generate", "node1", "--with-key", "-o", dir, "--address", address, "--port", "7443")
	return n
}

func (n *testNode) address() string { return n.api }

func (n *testNode) machineFile() string { return filepath.Join(n.dir, "node1.yaml") }

// try runs oscine and returns what it printed and its exit status.
func (n *testNode) try(args ...string) (stdout, stderr string, code int) {
	n.t.Helper()
	return n.tryWith(n.config, "", args...)
}

func (n *testNode) tryWith(config, stdin string, args ...string) (stdout, stderr string, code int) {
	n.t.Helper()
	var out, errOut bytes.Buffer
	code = cli.Run(append([]string{"--config", config}, args...), strings.NewReader(stdin), &out, &errOut)
	return out.String(), errOut.String(), code
}

// run is try for commands that must succeed; it returns standard output.
func (n *testNode) run(args ...string) string {
	n.t.Helper()
	out, errOut, code := n.try(args...)
	if code != 0 {
		n.t.Fatalf("oscine %s: exit status %d\n%s%s", strings.Join(args, " "), code, out, errOut)
	}
	return out
}

// refuse is try for commands that must fail with all these words.
func (n *testNode) refuse(args []string, words ...string) {
	n.t.Helper()
	out, errOut, code := n.try(args...)
	if code == 0 {
		n.t.Errorf("oscine %s succeeded, want it refused\n%s", strings.Join(args, " "), out)
	}
	for _, w := range words {
		if !strings.Contains(errOut, w) {
			n.t.Errorf("oscine %s: the error lacks %q:\n%s", strings.Join(args, " "), w, errOut)
		}
	}
}

// apply writes a manifest and applies it.
func (n *testNode) apply(text string) string {
	n.t.Helper()
	file := filepath.Join(n.t.TempDir(), "manifest.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
	return n.run("apply", "-f", file)
}

// writing returns what writes files below a folder and returns their paths.
func writing(t *testing.T, dir string) func(name, content string) string {
	return func(name, content string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
		return file
	}
}

// eventually polls until check is ok, and fails with what it saw last.
func (n *testNode) eventually(what string, limit time.Duration, check func() (seen string, ok bool)) {
	n.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		seen, ok := check()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("%s: not within %v, seen last:\n%s", what, limit, seen)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// awaitPhase polls a workload or model until it is in the phase.
func (n *testNode) awaitPhase(kind, name, phase string, limit time.Duration) {
	n.t.Helper()
	n.eventually(kind+" "+name+" "+phase, limit, func() (string, bool) {
		out, errOut, _ := n.try("get", kind, name)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		fields := strings.Fields(lines[len(lines)-1])
		return out + errOut, len(fields) > 2 && fields[2] == phase
	})
}

// awaitOutput polls a command until it succeeds and prints the words.
func (n *testNode) awaitOutput(words string, args ...string) {
	n.t.Helper()
	n.eventually(fmt.Sprintf("oscine %s printing %q", strings.Join(args, " "), words), later, func() (string, bool) {
		out, errOut, code := n.try(args...)
		return out + errOut, code == 0 && strings.Contains(out, words)
	})
}

// freePort returns a TCP port of loopback that nobody uses now.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
