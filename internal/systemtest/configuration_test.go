package systemtest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
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
		t.Errorf("rollback said %q", out)
	}
	if _, err := d.get(metrics, "/metrics"); err == nil {
		t.Error("the port is open after the rollback")
	}

	taken, err := net.Listen("tcp", loopback(0))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, takenPort, _ := net.SplitHostPort(taken.Addr().String())
	d.refuse([]string{"apply", "-f", changed("bad.yaml", takenPort)}, "rolled revision 4 back")
	if out := d.run("config", "history"); !strings.Contains(out, "revision 4 was rolled back") {
		t.Errorf("history:\n%s", out)
	}
	if got := d.mustGet(port, "/"); got != before {
		t.Errorf("changing the Machine restarted the workload: %q, before %q", got, before)
	}
}

// testMachineSystem has a booted machine create a VLAN and load a kernel module, and
// undo both. Its only card carries the VLAN.
func testMachineSystem(n *testNode) {
	t, file := n.t, filepath.Join(n.t.TempDir(), "machine.yaml")
	text := n.run("config", "show")
	card := regexp.MustCompile(`it has (\S+) \(`)
	apply := func(spec string) (said string, code int) {
		if err := os.WriteFile(file, []byte(strings.Replace(text, "spec:\n", "spec:\n"+spec, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		_, said, code = n.try("apply", "-f", file)
		return said, code
	}
	said, code := apply("    kernelModules: [{name: zfs}]\n    network: {interfaces: [{name: data, vlan: {link: none, id: 20}, dhcp: true}]}\n")
	found := card.FindStringSubmatch(said)
	if code == 0 || len(found) != 2 || !strings.Contains(said, "zfs: the image has no such kernel module") {
		t.Fatalf("what the machine does not have: exit status %d, %s", code, said)
	}
	if said, code = apply(fmt.Sprintf(`    kernelModules: [{name: dummy, parameters: {numdummies: "0"}}]
    network:
        interfaces:
            - {name: %[1]s, dhcp: true}
            - {name: data, vlan: {link: %[1]s, id: 20}, addresses: [198.51.100.1/24]}
            - {name: pair, bond: {interfaces: [dummy0]}}
`, found[1])); code == 0 || !strings.Contains(said, "no interface dummy0") {
		t.Errorf("a bond of what is not there: exit status %d, %s", code, said)
	}
	if said, code = apply(fmt.Sprintf(`    kernelModules: [{name: dummy, parameters: {numdummies: "0"}}]
    network:
        interfaces:
            - {name: %[1]s, dhcp: true}
            - {name: data, vlan: {link: %[1]s, id: 20}, addresses: [198.51.100.1/24]}
`, found[1])); code != 0 {
		t.Fatalf("a VLAN and a module: %s", said)
	}
	n.awaitOutput("198.51.100.1/24", "info")
	if got := n.run("logs", "system", "oscined"); strings.Contains(got, "spec.kernelModules of the Machine") {
		t.Errorf("the module:\n%s", got)
	}
	n.run("config", "rollback", "1")
	n.awaitOutput(" (dhcp)", "info") // the daemon has told what links it has
	if got := n.run("info"); strings.Contains(got, "Network data") {
		t.Errorf("the VLAN is there after the rollback:\n%s", got)
	}
}
