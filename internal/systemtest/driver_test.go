package systemtest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/pack"
)

// driverPack makes a pack with one driver program, as a vendor would.
func driverPack(t *testing.T, node, state string) string {
	t.Helper()
	tool, err := debian.FindTool(t.Context(), "mkfs.erofs")
	if err != nil {
		t.Skipf("needs mkfs.erofs: %v", err)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, pack.DriversPath, "qpu")
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-ldflags", "-X main.node="+node+" -X main.state="+state, "-o", program, "./testdata/qpu")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the driver program: %v\n%s", err, out)
	}
	manifest, err := json.Marshal(pack.Manifest{Name: "example-qpu", Version: "1.0", Arch: runtime.GOARCH, Drivers: []string{"qpu"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, pack.ManifestPath), manifest, 0o644); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "qpu.erofs")
	if out, err := tool.Command(t.Context(), "--quiet", "--all-root", file, dir).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.erofs: %v\n%s", err, out)
	}
	return file
}

// devices of a kind on the node's map.
func (n *testNode) devices(kind string) []hardware.Accelerator {
	n.t.Helper()
	m, err := hardware.Decode([]byte(n.run("hardware", "-o", "json")))
	if err != nil {
		n.t.Fatal(err)
	}
	var all []hardware.Accelerator
	for _, a := range m.Accelerators {
		if a.Kind == kind {
			all = append(all, a)
		}
	}
	return all
}

// TestDriverPack adds a class of devices to a running node by a pack: the
// device is on the map, a workload selects it by the vendor's own attribute and
// finds its device node, and loses it with the pack.
func TestDriverPack(t *testing.T) {
	d := newDaemon(t)
	node := fmt.Sprintf("/dev/oscine-qpu-%d", os.Getpid())
	if err := syscall.Mknod(node, syscall.S_IFCHR|0o666, 1<<8|5); err != nil { // as /dev/zero
		t.Skipf("needs a device node: %v", err)
	}
	t.Cleanup(func() { _ = os.Remove(node) })
	d.run("image", "import", webArchive(t, d.arch))
	d.apply(strings.Replace(webManifest(freePort(t)), "memory: 64Mi}", `memory: 64Mi, devices: [{name: qpu, selector: 'device.attributes["oscine.dev"].kind == "quantum" && device.attributes["oscine.dev"].qubits >= 5'}]}`, 1))
	d.awaitPhase("workload", "web", "Unplaced", soon)

	state := filepath.Join(t.TempDir(), "qpu.json")
	d.run("pack", "install", driverPack(t, node, state))
	if got := d.run("pack", "list"); !regexp.MustCompile(`example-qpu +1\.0 .* qpu +sha256:`).MatchString(got) {
		t.Errorf("pack list lacks the pack or its driver:\n%s", got)
	}
	d.eventually("the driver's device on the map", soon, func() (string, bool) {
		list := d.devices("quantum")
		return fmt.Sprintf("%+v", list), len(list) == 1 && list[0].ID == "quantum0" && list[0].Model == "Five" && list[0].Usable()
	})
	if explained := d.run("hardware", "--explain", "quantum0"); !strings.Contains(explained, "usr/lib/oscine/drivers/qpu") {
		t.Errorf("explained without its program:\n%s", explained)
	}
	spec, err := os.ReadFile(filepath.Join(d.runDir, "cdi", "oscine.dev-quantum.json"))
	if err != nil || !strings.Contains(string(spec), node) {
		t.Errorf("CDI specification: %s, %v", spec, err)
	}
	d.awaitPhase("workload", "web", "Running", soon)
	inside, err := os.Stat(fmt.Sprintf("/proc/%d/root%s", d.pid("workload", "web"), node))
	if err != nil || inside.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("in the container: %v, %v", inside, err)
	}
	if brought, err := os.Stat(fmt.Sprintf("/proc/%d/root/opt/qpu/qpu", d.pid("workload", "web"))); err != nil || brought.Mode()&0o111 == 0 {
		t.Errorf("the driver's own file in the container: %v, %v", brought, err)
	}
	testShare(d, state)

	d.run("pack", "remove", "example-qpu")
	d.awaitPhase("workload", "web", "Unplaced", soon)
	if list := d.devices("quantum"); len(list) != 0 {
		t.Errorf("after the pack is gone: %+v", list)
	}
}

// testShare cuts the device for a workload and a second one, through a crash
// of the daemon, and makes it whole again.
func testShare(d *daemon, state string) {
	t := d.t
	cut := func(want int) {
		t.Helper()
		d.eventually(fmt.Sprintf("a device cut into %d", want), soon, func() (string, bool) {
			text, err := os.ReadFile(state)
			return fmt.Sprintf("%s, %v", text, err), err == nil && strings.Count(string(text), `"half"`) == want
		})
	}
	half := func(name string, port int) string {
		text := strings.Replace(webManifest(port), "memory: 64Mi}", `memory: 64Mi, devices: [{name: qpu, selector: 'device.attributes["oscine.dev"].kind == "quantum"', fraction: {profile: half}}]}`, 1)
		return strings.NewReplacer("name: web}", "name: "+name+"}", "name: web-data", "name: "+name+"-data").Replace(text)
	}
	d.apply(half("web", freePort(t)))
	cut(1)
	d.awaitPhase("workload", "web", "Running", soon)
	d.apply(half("other", freePort(t)))
	cut(2)
	d.awaitPhase("workload", "other", "Running", soon)
	if told := d.run("describe", "workload", "web"); !strings.Contains(told, "quantum0 by partitions: the partition asked for, at slice") {
		t.Errorf("describe does not tell how the device is shared:\n%s", told)
	}
	before := d.pid("workload", "web")
	d.stop(syscall.SIGKILL)
	d.start()
	d.awaitPhase("workload", "web", "Running", soon)
	if now := d.pid("workload", "web"); now != before {
		t.Errorf("the daemon's crash restarted a workload with a partition: process %d, before %d", now, before)
	}
	cut(2)
	d.run("delete", "workload", "other")
	cut(1)
	// The whole device again, for which the half is given back first.
	d.apply(strings.Replace(half("web", freePort(t)), ", fraction: {profile: half}", "", 1))
	cut(0)
	d.awaitPhase("workload", "web", "Running", soon)
}
