package hardware

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/hardware/hardwaretest"
)

// counting counts what is asked of a tree.
type counting struct {
	tree
	asked []string
}

func (c *counting) read(name string, limit int) ([]byte, error) {
	c.asked = append(c.asked, name)
	return c.tree.read(name, limit)
}

func (c *counting) names(dir string) ([]string, error) {
	c.asked = append(c.asked, dir)
	return c.tree.names(dir)
}

func watching(t *testing.T, from *hardwaretest.Tree) (*watcher, *counting) {
	t.Helper()
	c := &counting{tree: inMemoryTree(t, from)}
	w, err := newWatcher(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	return w, c
}

func health(m *Machine) map[string]string {
	out := map[string]string{}
	for _, a := range m.Accelerators {
		out[a.ID] = a.Health.State
	}
	return out
}

const gpu3Path = "/devices/pci0000:40/0000:40:01.0/0000:41:00.0/0000:42:01.0/0000:44:00.0"

// TestHotplug takes a GPU off the bus and puts it back: it is marked, keeps
// its name, and only its own files are read.
func TestHotplug(t *testing.T) {
	from := hardwaretest.Server8GPU()
	w, c := watching(t, from)
	whole := len(c.asked)
	first := w.m

	from.Remove("/sys" + gpu3Path)
	from.Remove("/sys/bus/pci/devices/0000:44:00.0")
	c.tree, c.asked = inMemoryTree(t, from), nil
	changes := w.apply([]Event{{Action: "remove", Subsystem: "pci", Path: gpu3Path}})
	want := []Change{
		{"gpu3", "health lost, was ok: the device is gone from the bus", DeviceLost, true},
		{"0000:44:00.0", "removed: PCI device 3D", DeviceRemoved, false},
	}
	if diff := gocmp.Diff(want, changes); diff != "" {
		t.Errorf("changes after removal (-want +got):\n%s", diff)
	}
	if got := health(w.m)["gpu3"]; got != "lost" {
		t.Errorf("gpu3 is %s, want lost", got)
	}
	if got := health(first)["gpu3"]; got != "ok" {
		t.Errorf("the map before the event changed: gpu3 is %s", got)
	}

	c.tree, c.asked = inMemoryTree(t, hardwaretest.Server8GPU()), nil
	w.apply([]Event{{Action: "add", Subsystem: "pci", Path: gpu3Path}, {Action: "bind", Subsystem: "pci", Path: gpu3Path}})
	if diff := gocmp.Diff(asJSON(t, first), asJSON(t, w.m)); diff != "" {
		t.Errorf("map after the device is back (-before +after):\n%s", diff)
	}
	t.Logf("whole map: %d reads; one hot-plug: %d", whole, len(c.asked))
	for _, name := range c.asked {
		if !strings.Contains(name, "0000:44:00.0") && !strings.HasPrefix(name, "/proc/driver/nvidia/") {
			t.Errorf("hot-plug of one device read %s", name)
		}
	}
}

// TestAgain maps everything again, as after lost events: devices keep their
// names, new ones get others.
func TestAgain(t *testing.T) {
	from := hardwaretest.Server8GPU()
	w, c := watching(t, from)
	from.Remove("/sys/bus/pci/devices/0000:13:00.0") // gpu0
	c.tree = inMemoryTree(t, from)
	w.apply([]Event{{Action: eventLost}})
	if got := health(w.m); got["gpu0"] != "lost" || got["gpu1"] != "ok" || len(got) != 12 {
		t.Errorf("after gpu0 went: %v", got)
	}
	if a := w.m.Accelerator("gpu1"); a.Address != "0000:14:00.0" || w.m.Facts["gpu1"] == nil {
		t.Errorf("gpu1 is %s now, with %d facts", a.Address, len(w.m.Facts["gpu1"]))
	}
	from.PCI(hardwaretest.PCI{Parent: "pci0000:f2", Address: "0000:f2:00.0", Class: "030200", Vendor: "10de", Device: "2330", Driver: "nvidia", Node: 1})
	c.tree = inMemoryTree(t, from)
	w.apply([]Event{{Action: eventLost}})
	if a := w.m.Accelerator("0000:f2:00.0"); a == nil || a.ID != "gpu8" {
		t.Errorf("the new device is %+v, want gpu8", a)
	}
	if got := health(w.m); got["gpu0"] != "lost" || len(got) != 13 {
		t.Errorf("after another came: %v", got)
	}
}

func TestHotplugOfUSB(t *testing.T) {
	from := hardwaretest.RaspberryHailo()
	w, c := watching(t, from)
	from.Remove("/sys/bus/usb/devices/1-2")
	c.tree = inMemoryTree(t, from)
	event := []Event{{Action: "remove", Subsystem: "usb", Path: "/devices/platform/axi/xhci-hcd.0/usb1/1-2"}}
	w.apply(event)
	if got := health(w.m)["tpu0"]; got != "lost" {
		t.Errorf("tpu0 is %s, want lost", got)
	}
	c.tree = inMemoryTree(t, hardwaretest.RaspberryHailo())
	w.apply(event)
	if got := health(w.m)["tpu0"]; got != "degraded" {
		t.Errorf("tpu0 is %s, want degraded (USB 2)", got)
	}
}

// TestWornLink lowers a link's width, which no event announces.
func TestWornLink(t *testing.T) {
	from := hardwaretest.Server8GPU()
	w, c := watching(t, from)
	if changes := w.poll(); len(changes) > 0 {
		t.Errorf("nothing changed, poll says %v", changes)
	}
	from.File("/sys"+gpu3Path+"/current_link_width", "4")
	c.tree = inMemoryTree(t, from)
	want := []Change{{"gpu3", "health degraded, was ok: PCI link runs at x4 of x16", LinkDegraded, true}}
	if diff := gocmp.Diff(want, w.poll()); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	from.File("/sys"+gpu3Path+"/current_link_width", "16")
	c.tree = inMemoryTree(t, from)
	if got := fmt.Sprint(w.poll()); got != "[{gpu3 health ok, was degraded DeviceRecovered false}]" {
		t.Errorf("healed link: %s", got)
	}
}

func TestFellOffTheBus(t *testing.T) {
	from := hardwaretest.Server8GPU()
	w, c := watching(t, from)
	from.File("/sys"+gpu3Path+"/config", "\xff\xff\xff\xff\xff\xff\xff\xff")
	c.tree = inMemoryTree(t, from)
	w.poll()
	if got := health(w.m)["gpu3"]; got != "lost" {
		t.Errorf("gpu3 is %s, want lost", got)
	}
}

// TestWear counts heat and memory errors from the first look on.
func TestWear(t *testing.T) {
	from := hardwaretest.Server8GPU()
	const heat, errors = "/sys/devices/system/cpu/cpu32/thermal_throttle/package_throttle_count", "/sys/devices/system/edac/mc/mc0/ue_count"
	from.File(heat, "5")
	from.File(errors, "0")
	w, c := watching(t, from)
	if changes := w.poll(); len(changes) > 0 {
		t.Errorf("the first look says %v", changes)
	}
	from.File(heat, "8")
	from.File(errors, "1")
	c.tree = inMemoryTree(t, from)
	want := []Change{
		{"mc0", "uncorrectable memory error, once since the last look", MemoryError, true},
		{"package1", "slowed down by heat, 3 times since the last look", SlowedByHeat, true},
	}
	if diff := gocmp.Diff(want, w.poll()); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

func TestErrorCounters(t *testing.T) {
	from := hardwaretest.Server8GPU()
	from.File("/sys"+gpu3Path+"/aer_dev_fatal", "Undefined 0\nDLP 1\nTOTAL_ERR_FATAL 1")
	a := described(t, from).Accelerator("gpu3")
	if a.Health.State != "degraded" || !slices.Equal(a.Health.Reasons, []string{"1 fatal PCI errors"}) {
		t.Errorf("health %+v", a.Health)
	}
}

func TestKernelRecord(t *testing.T) {
	w, _ := watching(t, hardwaretest.Server8GPU())
	for _, c := range []struct{ line, want string }{
		{"NVRM: Xid (PCI:0000:44:00): 31, pid=77, name=python, Ch 0000001b", "[]"},
		{"NVRM: Xid (PCI:0000:44:00): 48, pid='<unknown>', Double Bit ECC Error", "[{gpu3 health degraded, was ok: driver: Xid 48, double-bit memory error DeviceDegraded true}]"},
		{"nvidia 0000:14:00.0: PCIe Bus Error: severity=Corrected, type=Physical Layer", "[]"},
		{"nvidia 0000:14:00.0: PCIe Bus Error: severity=Uncorrected (Fatal), type=Transaction Layer", "[{gpu1 health degraded, was ok: driver: PCI error, Uncorrected (Fatal) DeviceDegraded true}]"},
		{"NVRM: Xid (PCI:0000:44:00): 79, pid=77, GPU has fallen off the bus.", "[{gpu3 health lost, was degraded: driver: Xid 48, double-bit memory error, driver: Xid 79, fallen off the bus DeviceLost true}]"},
		{"usb 1-2: new high-speed USB device", "[]"},
	} {
		if got := fmt.Sprint(w.kernelRecord(c.line)); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.line, got, c.want)
		}
	}
}

func TestParseUevent(t *testing.T) {
	e, ok := parseUevent([]byte("bind@/devices/pci0000:00/0000:00:04.0\x00ACTION=bind\x00SUBSYSTEM=pci\x00DEVNAME=x\x00SEQNUM=12"))
	want := Event{Action: "bind", Subsystem: "pci", Path: "/devices/pci0000:00/0000:00:04.0", Name: "x"}
	if !ok || e != want {
		t.Errorf("got %+v, want %+v", e, want)
	}
	for _, bad := range []string{"", "libudev\x00\xfe", "add@devices", "add@/a/../b", "@/devices"} {
		if e, ok := parseUevent([]byte(bad)); ok {
			t.Errorf("%q was taken for %+v", bad, e)
		}
	}
}

// TestWatchThisMachine watches the machine of the test for a moment.
func TestWatchThisMachine(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	maps := 0
	err := Watch(ctx, "/", time.Hour, func(m *Machine, _ []Change) {
		if maps++; m.Online.Empty() {
			t.Error("no CPU online")
		}
		cancel()
	})
	if err != nil || maps == 0 {
		t.Errorf("%d maps, error %v", maps, err)
	}
}

func TestAskDrivers(t *testing.T) {
	dir := t.TempDir()
	programs := map[string]string{
		"10-nvml": `cat >/dev/null; echo '{"schema":"oscine.dev/driver/v1","devices":[{"address":"0000:13:00.0","architecture":"sm_90","memory":85899345920,
			"partitions":[{"id":"mig1-0","profile":"1g.10gb","memory":10737418240}]}],"links":[{"a":"0000:13:00.0","b":"0000:14:00.0","kind":"nvlink","count":18,"bytesPerSecond":4.5e11}]}'`,
		"20-quantum": `if [ $1 = load ]; then cat >/dev/null; echo '{"schema":"oscine.dev/driver/v1","devices":{"qpu.example":{"Busy":0.5},"0000:13:00.0":{"Busy":1}}}'; exit; fi
			grep -q '"oscine.dev/hardware/v1"' && echo '{"schema":"oscine.dev/driver/v1","devices":[{"kind":"quantum","bus":"virtual","address":"qpu.example",
			"model":"5 qubits","profiles":[{"name":"half","slices":2,"starts":[0,2]},{"name":"none","slices":0,"starts":[0]},{"name":"far","slices":2,"starts":[63]}],"files":[{"host":"/usr/lib/libqpu.so","container":"/opt/qpu/libqpu.so"},{"host":"/etc/shadow","container":"/etc/shadow"},{"host":"/x","container":"/opt/../etc/x"}],"deviceNodes":["/dev/qpu0","/etc/passwd"],"attributes":{"qubits":5,"kind":"gpu"}}],"verbs":["load"]}'`,
		"30-broken": `echo not json`,
		"40-fails":  `exit 3`,
		"50-old":    `echo '{"schema":"oscine.dev/driver/v0"}'`,
	}
	for name, script := range programs {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "README"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	m := described(t, hardwaretest.Server8GPU())
	list, err := DriverPrograms(dir)
	if err != nil || len(list) != 5 {
		t.Fatalf("programs %v, %v, want the five that can be run", list, err)
	}
	if none, err := DriverPrograms(filepath.Join(dir, "none")); none != nil || err != nil {
		t.Errorf("a directory that is not there: %v, %v", none, err)
	}
	drivers, err := AskDrivers(t.Context(), m, list...)
	if err != nil || len(drivers) != 2 || !drivers[1].Can("load") || drivers[0].Can("load") {
		t.Fatalf("drivers %+v, %v, want two that answered, of which the second tells loads", drivers, err)
	}
	if loads := AskLoads(t.Context(), m, drivers); loads["quantum0"].Busy != 0.5 || len(loads) != 1 {
		t.Errorf("loads %+v, want only that of the device that is the program's own", loads)
	}
	gpu := m.Accelerator("gpu0")
	if gpu.Architecture != "sm_90" || gpu.Partitions[0].ID != "gpu0-mig1-0" || gpu.Partitions[0].Profile != "1g.10gb" || gpu.Model != "H100 80GB HBM3" {
		t.Errorf("gpu0 = %+v", gpu)
	}
	if p, err := m.Between("gpu0", "gpu1"); err != nil || p.Proximity != Direct || p.BytesPerSecond != 4.5e11 {
		t.Errorf("gpu0 to gpu1: %+v, %v", p, err)
	}
	qpu := m.Accelerator("quantum0")
	if qpu == nil || !slices.Equal(qpu.DeviceNodes, []string{"/dev/qpu0"}) || qpu.Attributes["qubits"] != 5.0 || qpu.Attributes["kind"] != "quantum" || !qpu.Usable() {
		t.Errorf("quantum0 = %+v", qpu)
	}
	if len(qpu.Files) != 1 || qpu.Files[0].Container != "/opt/qpu/libqpu.so" {
		t.Errorf("files %+v, want only what is brought below /opt or /usr/local", qpu.Files)
	}
	if len(qpu.Profiles) != 1 || qpu.Profiles[0].Name != "half" {
		t.Errorf("profiles %+v, want only what fits a device", qpu.Profiles)
	}
	if specs := CDI(m); len(specs) != 2 || len(specs[1].Devices[0].ContainerEdits.Mounts) != 1 {
		t.Errorf("CDI %+v, want a mount for the file", specs)
	}
	if len(m.Gaps) != 3 {
		t.Errorf("three programs fail, gaps: %v", m.Gaps)
	}
}

// TestShareAnswers holds what a driver's program may ask of a container.
func TestShareAnswers(t *testing.T) {
	mount := func(source, target string) ShareAnswer { return ShareAnswer{Mounts: []ShareMount{{source, target}}} }
	for name, c := range map[string]struct {
		answer ShareAnswer
		ok     bool
	}{
		"its folder":       {mount("/run/d/gpu0/pipe", "/run/pipe"), true},
		"its whole folder": {mount("/run/d/gpu0/", "/run/pipe"), false},
		"another folder":   {mount("/etc", "/host"), false},
		"up and out":       {mount("/run/d/gpu0/../gpu1", "/x"), false},
		"relative source":  {mount("pipe", "/x"), false},
		"relative target":  {mount("/run/d/gpu0/pipe", "x"), false},
		"a variable":       {ShareAnswer{Env: []string{"A=b=c"}}, true},
		"without a value":  {ShareAnswer{Env: []string{"A"}}, false},
		"without its name": {ShareAnswer{Env: []string{"=b"}}, false},
	} {
		if err := c.answer.check("/run/d/gpu0"); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if a := mount("/run", "/x"); a.check("") == nil {
		t.Error("without a directory of its own, a program has a folder mounted")
	}
}

// What others may change does not run with the daemon's rights.
func TestDriverProgramsAreTrusted(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, loose := range []string{program, dir} {
		if err := os.Chmod(loose, 0o777); err != nil {
			t.Fatal(err)
		}
		if list, err := DriverPrograms(dir); len(list) != 0 || err == nil || !strings.Contains(err.Error(), "chmod go-w") {
			t.Errorf("%s can be written by all: got %v, %v", loose, list, err)
		}
		if err := os.Chmod(loose, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDriverEvents(t *testing.T) {
	program := filepath.Join(t.TempDir(), "driver")
	script := "#!/bin/sh\nread devices; echo '{\"device\":\"a\",\"kind\":\"xid\",\"code\":79,\"text\":\"fell off\"}'; cat >/dev/null; echo done >" + program + ".ended\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var got []DriverEvent
	err := (&Driver{Program: program, Devices: []string{"a"}}).Events(ctx, func(e DriverEvent) { got = append(got, e); cancel() })
	if err != nil || len(got) != 1 || got[0].Code != 79 {
		t.Errorf("events %+v, %v", got, err)
	}
	if _, err := os.Stat(program + ".ended"); err != nil {
		t.Error("the program did not end by the end of its input")
	}
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho no GPU here >&2; exit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := (&Driver{Program: program}).Events(t.Context(), func(DriverEvent) {}); err == nil || !strings.Contains(err.Error(), "no GPU here") {
		t.Errorf("a program that fails: got %v, want its words", err)
	}
}

func TestSampler(t *testing.T) {
	from := hardwaretest.Server8MI300X()
	from.File("/proc/stat", "cpu  100 0 0 100 0 0 0 0 0 0\ncpu0 30 0 20 50 0 0 0 0 0 0\ncpu1 0 0 0 100 0 0 0 0 0 0")
	s := &Sampler{inMemoryTree(t, from)}
	m := discover(s.tree, nil)
	first := s.Read(m, nil)
	if l := first.Since(Reading{}); l.CPUs[0] != 0.5 || l.CPUs[1] != 0 {
		t.Errorf("CPU shares since the start %v, want 0.5 and 0", l.CPUs)
	}
	from.File("/proc/stat", "cpu0 60 0 90 100 0 0 0 0 0 0\ncpu1 0 0 0 200 0 0 0 0 0 0")
	s.tree = inMemoryTree(t, from)
	l := s.Read(m, map[string]DeviceLoad{"gpu4": {Busy: 0.7}}).Since(first)
	if math.Abs(l.CPUs[0]-2.0/3) > 1e-9 || l.CPUs[1] != 0 {
		t.Errorf("CPU shares %v, want 2/3 and 0", l.CPUs)
	}
	if d := l.Devices["gpu4"]; d.Busy != 0.7 {
		t.Errorf("the driver reported gpu4: %+v", d)
	}
	if d := l.Devices["gpu3"]; d.Busy != 0.3 || d.Used != 11<<30 {
		t.Errorf("gpu3 load %+v", d)
	}
}
