package systemtest

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/cli"
)

// testSecrets gives a workload secrets that a reader finds nowhere, and then cuts
// the reader off.
func testSecrets(d *daemon) {
	t, n := d.t, d.testNode
	const first, second = "hunter2-first", "hunter2-second"
	set := func(name, entry, value string) {
		t.Helper()
		if _, errOut, code := n.tryWith(n.config, value+"\n", "secret", "set", name, "--from-stdin", entry); code != 0 {
			t.Fatalf("secret set: exit status %d: %s", code, errOut)
		}
	}
	set("db", "password", first)
	n.apply(fmt.Sprintf(`
apiVersion: oscine.dev/v1
kind: Workload
metadata: {name: other}
spec: {image: %s, args: [sleep], resources: {cpu: 100m, memory: 32Mi}, secretEnv: {PASSWORD: db/password}, secrets: [{name: tls, path: /run/secrets/tls}]}
`, webImage))
	n.awaitOutput("waits for Secret/tls", "describe", "workload", "other")
	set("tls", "key", first)
	n.awaitPhase("workload", "other", "Running", soon)
	said := func(want string, command ...string) {
		t.Helper()
		n.eventually(strings.Join(command, " "), soon, func() (string, bool) {
			out, errOut, _ := n.try(append([]string{"exec", "other", "--"}, command...)...)
			return fmt.Sprintf("got %q %s, want %q", out, errOut, want), out == want
		})
	}
	said(first, "/web", "env", "PASSWORD")
	said(first, "/web", "file", "/run/secrets/tls/key")
	before := n.pid("workload", "other")
	set("tls", "key", second)
	said(second, "/web", "file", "/run/secrets/tls/key")
	if after := n.pid("workload", "other"); after != before {
		t.Errorf("a rewritten file started the workload again: process %d, before %d", after, before)
	}
	set("db", "password", second)
	said(second, "/web", "env", "PASSWORD")
	n.refuse([]string{"secret", "rm", "db"}, "Secret/db is used by Workload/other")

	reader := filepath.Join(n.dir, "secrets.config")
	n.run("config", "credentials", "sam", "--role", "reader", "--authority", n.dir, "-o", reader)
	readerSeesNothing(n, reader, first, second)
	if out := d.output.String(); strings.Contains(out, "hunter2") {
		t.Errorf("a value is in the daemon's log:\n%s", out)
	}
	revokedReaderIsCutOff(n, reader)
	n.run("delete", "workload", "other")
	n.run("secret", "rm", "db")
	n.run("delete", "secret", "tls")
}

func readerSeesNothing(n *testNode, reader string, values ...string) {
	t := n.t
	for _, args := range [][]string{
		{"get"}, {"get", "-o", "yaml"}, {"get", "secrets", "-o", "json"}, {"describe", "secret", "db"}, {"describe", "workload", "other"},
		{"events"}, {"info", "-o", "json"}, {"logs", "other"}, {"logs", "system", "oscined"}, {"secret", "list"}, {"hardware", "-o", "json"}, {"dmesg"},
	} {
		out, errOut, _ := n.tryWith(reader, "", args...)
		for _, value := range values {
			if strings.Contains(out+errOut, value) {
				t.Errorf("oscine %v shows a reader the value %s", args, value)
			}
		}
	}
	for _, args := range [][]string{{"exec", "other", "--", "/web", "env", "PASSWORD"}, {"secret", "set", "db", "a=b"}, {"cp", "other:/run/secrets/tls/key", filepath.Join(n.dir, "stolen")}} {
		if _, errOut, code := n.tryWith(reader, "", args...); code == 0 || !strings.Contains(errOut, "needs role") {
			t.Errorf("a reader: oscine %v: exit status %d, %s", args, code, errOut)
		}
	}
}

func revokedReaderIsCutOff(n *testNode, reader string) {
	t := n.t
	ended, output := make(chan string, 1), &lockedBuffer{}
	go func() {
		code := cli.Run([]string{"--config", reader, "get", "workloads", "--watch"}, strings.NewReader(""), output, output)
		ended <- fmt.Sprintf("exit status %d: %s", code, output)
	}()
	n.awaitWritten("workload/other", output)
	n.refuse([]string{"config", "revoke", "admin", "--authority", n.dir}, "the certificate of this very call")
	if out := n.run("config", "revoke", "sam", "--authority", n.dir); !strings.Contains(out, "sam revoked") {
		t.Errorf("config revoke: got %q", out)
	}
	select {
	case got := <-ended:
		if !strings.Contains(got, "revoked") || strings.HasPrefix(got, "exit status 0") {
			t.Errorf("the watch ended with %s", got)
		}
	case <-time.After(20 * time.Second):
		t.Error("a revoked reader goes on watching")
	}
	if _, errOut, code := n.tryWith(reader, "", "info"); code == 0 || !strings.Contains(errOut, "revoked") {
		t.Errorf("a revoked reader: exit status %d, %s", code, errOut)
	}
	if out := n.run("config", "certificates"); !strings.Contains(out, "revoked ") {
		t.Errorf("config certificates: got %q", out)
	}
}

// TestHostedSecrets is a hosted node with secrets and a revoked reader.
func TestHostedSecrets(t *testing.T) {
	d := newDaemon(t)
	d.run("image", "import", webArchive(t, d.arch))
	testSecrets(d)
}
