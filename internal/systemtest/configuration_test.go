package systemtest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// testConfiguration changes the node's Machine: well, so that its daemon cannot
// start, and back. The workload web, at port, goes on all the time.
func testConfiguration(d *daemon, port int) {
	t := d.t
	before, metrics := d.mustGet(port, "/"), freePort(t)
	changed := func(name, port string) string {
		text := d.run("config", "show")
		if strings.Contains(text, "PRIVATE KEY") {
			t.Errorf("the node's key is told:\n%s", text)
		}
		if i := strings.Index(text, "metrics:"); i >= 0 {
			t.Fatalf("the node has metrics:\n%s", text)
		}
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(strings.Replace(text, "spec:\n", "spec:\n    metrics: {port: "+port+"}\n", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	file := changed("good.yaml", strconv.Itoa(metrics))
	if out := d.run("apply", "-f", file, "--dry-run"); !strings.Contains(out, fmt.Sprintf("+ spec.metrics.port: %d", metrics)) {
		t.Errorf("dry run said %q", out)
	}
	if _, err := d.get(metrics, "/metrics"); err == nil {
		t.Error("a dry run opened the port")
	}
	if out := d.run("apply", "-f", file); !strings.Contains(out, "machine changed (revision 2)") {
		t.Errorf("apply said %q", out)
	}
	if page := d.mustGet(metrics, "/metrics"); !strings.Contains(page, "oscine_") {
		t.Errorf("metrics: %.200q", page)
	}
	if out := d.run("config", "rollback", "1"); !strings.Contains(out, "- spec.metrics.port") {
		t.Errorf("return said %q", out)
	}
	if _, err := d.get(metrics, "/metrics"); err == nil {
		t.Error("the port is open after the return")
	}

	taken, err := net.Listen("tcp", loopback(0))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, takenPort, _ := net.SplitHostPort(taken.Addr().String())
	d.refuse([]string{"apply", "-f", changed("bad.yaml", takenPort)}, "taken revision 4 back")
	if out := d.run("config", "history"); !strings.Contains(out, "revision 4 was taken back") {
		t.Errorf("history:\n%s", out)
	}
	if got := d.mustGet(port, "/"); got != before {
		t.Errorf("changing the Machine restarted the workload: %q, before %q", got, before)
	}
}
