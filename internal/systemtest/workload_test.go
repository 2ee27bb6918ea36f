package systemtest

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Limits on waiting; emulated machines are slow.
const (
	soon  = 90 * time.Second
	later = 4 * time.Minute
)

func webManifest(hostPort int) string {
	return fmt.Sprintf(`
apiVersion: oscine.dev/v1
kind: Workload
metadata: {name: web}
spec:
  image: %s
  resources: {cpu: 500m, memory: 64Mi}
  ports: [{port: 8080, hostPort: %d}]
  volumes: [{name: web-data, path: /data}]
  health: {http: {port: 8080, path: /health}, interval: 500ms, retries: 2}
`, webImage, hostPort)
}

// get returns the body that a published port answers with.
func (n *testNode) get(hostPort int, path string) (string, error) {
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get("http://" + n.reach(hostPort) + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", resp.Status, body)
	}
	return strings.TrimSpace(string(body)), err
}

func (n *testNode) mustGet(hostPort int, path string) string {
	n.t.Helper()
	var body string
	n.eventually("GET "+path, soon, func() (string, bool) {
		var err error
		body, err = n.get(hostPort, path)
		return fmt.Sprint(err), err == nil
	})
	return body
}

// awaitRestarted waits until another process of the workload web answers than the one
// that answered with before.
func (n *testNode) awaitRestarted(hostPort int, before string) {
	n.t.Helper()
	n.eventually("another process that answers", later, func() (string, bool) {
		got, err := n.get(hostPort, "/")
		return fmt.Sprintf("%q, %v", got, err), err == nil && got != before
	})
}

// testRuns is oscine run in all its ways.
func testRuns(n *testNode) {
	t := n.t
	out, errOut, code := n.try("run", webImage, "--", "say", "good", "morning")
	if out != "good morning\n" || !strings.Contains(errOut, "and this to stderr\n") || code != 0 {
		t.Errorf("run say: got %q, %q, %d", out, errOut, code)
	}
	if _, _, code := n.try("run", webImage, "--", "exit", "7"); code != 7 {
		t.Errorf("run exit 7: got exit status %d", code)
	}
	facts := n.run("run", "--cpu", "1", webImage, "--", "facts")
	for _, want := range []string{"uid 1000\n", "CapEff: 0000000000000000\n", "NoNewPrivs: 1\n", "Seccomp: 2\n", "write to the root: open /file: read-only file system", "write to /tmp: <nil>\n", "more than 4096 open files: true\n"} {
		if !strings.Contains(facts, want) {
			t.Errorf("the sandbox lacks %q:\n%s", want, facts)
		}
	}
	_, errOut, code = n.try("run", "--memory", "32Mi", webImage, "--", "eat")
	if code != 137 || !strings.Contains(errOut, "more than its memory limit") {
		t.Errorf("run eat: got exit status %d and %q, want 137 and the reason", code, errOut)
	}
	if left := n.run("get"); strings.Contains(left, "web-") {
		t.Errorf("run left something behind:\n%s", left)
	}
	n.refuse([]string{"run", "oscine.invalid/nothing:1"}, "oscine.invalid")
}

// testWorkload applies, watches, reads, enters and changes a workload. It is
// left running.
func testWorkload(n *testNode, port int) {
	t := n.t
	if got := n.apply(webManifest(port)); !strings.Contains(got, "workload/web created") {
		t.Errorf("apply: got %q", got)
	}
	n.awaitPhase("workload", "web", "Running", later)
	if got := n.mustGet(port, "/"); !strings.HasPrefix(got, "hello from") {
		t.Errorf("the workload answers %q", got)
	}
	if got := n.apply(webManifest(port)); !strings.Contains(got, "unchanged") {
		t.Errorf("apply again: got %q", got)
	}
	if got := n.mustGet(port, "/count"); got != "1" {
		t.Errorf("first count: got %q", got)
	}
	description := n.run("describe", "workload", "web")
	for _, want := range []string{"placement:", "reason:", "cpus:", "phase: Running"} {
		if !strings.Contains(description, want) {
			t.Errorf("describe lacks %q:\n%s", want, description)
		}
	}
	if got := n.run("logs", "web"); got != "listening on 8080\n" {
		t.Errorf("logs: got %q", got)
	}
	out, errOut, code := n.tryWith(n.config, "whisper\n", "exec", "-i", "web", "--", "/web", "cat")
	if out != "WHISPER\n" || code != 0 {
		t.Errorf("exec: got %q, %q, %d", out, errOut, code)
	}
	if _, _, code := n.try("exec", "web", "--", "/web", "exit", "3"); code != 3 {
		t.Errorf("exec exit 3: got exit status %d", code)
	}
	testCopy(n)
	n.refuse([]string{"exec", "web", "--", "/bin/sh"}, "/bin/sh")
	n.refuse([]string{"exec", "nobody", "--", "/web"}, "nobody", "not found")
	n.refuse([]string{"describe", "workload", "nobody"}, "not found")
	n.refuse([]string{"image", "remove", webImage}, "uses the image")
}

func testCopy(n *testNode) {
	t := n.t
	dir := t.TempDir()
	source := filepath.Join(dir, "in")
	if err := os.MkdirAll(filepath.Join(source, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(source, "sub", "file"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	n.run("cp", source, "web:/data/copied")
	n.run("cp", "web:/data/copied/sub/file", filepath.Join(dir, "out"))
	if got, err := os.ReadFile(filepath.Join(dir, "out")); string(got) != "content" {
		t.Errorf("the copied file came back as %q, %v", got, err)
	}
	n.refuse([]string{"cp", "web:/nothing", dir}, "/nothing")
	n.refuse([]string{"cp", source, "web:relative"}, "must be absolute")
}

// testHealth makes the workload sick and waits for its restart.
func testHealth(n *testNode, port int) {
	before := n.mustGet(port, "/")
	n.mustGet(port, "/sicken")
	n.awaitRestarted(port, before)
	n.awaitPhase("workload", "web", "Running", later)
}
