package nvml

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/hardware/hardwaretest"
	"oscine.dev/oscine/internal/nvml/nvmltest"
)

// rig is a pretended machine and its map as the kernel has it.
type rig struct {
	*nvmltest.Machine
	base *hardware.Machine
}

// TestHelper tries the real helper program on pretended machines.
func TestHelper(t *testing.T) {
	helper, base := nvmltest.Build(t, "../.."), server(t)
	for name, test := range map[string]func(*testing.T, *rig){
		"probe": testProbe, "hidden switches": testHiddenSwitches, "NVML cannot work": testNVMLCannotWork, "events": testEvents,
		"partitions": testPartitions, "nothing half done": testNothingHalfDone, "compute modes": testComputeModes, "no compute modes": testNoComputeModes, "MPS": testMPS, "bad requests": testBadRequests,
	} {
		t.Run(name, func(t *testing.T) { test(t, &rig{nvmltest.New(t, helper), base}) })
	}
}

// server is the map of a machine with eight H100, as the kernel has it.
func server(t *testing.T) *hardware.Machine {
	t.Helper()
	dir := t.TempDir()
	if err := hardwaretest.Server8GPU().Write(dir); err != nil {
		t.Fatal(err)
	}
	m, err := hardware.Discover(dir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// ask has the helper report the machine's GPUs. For those that the stand-in lacks it reports that the driver
// knows none.
func ask(t *testing.T, n *rig) (*hardware.Machine, *hardware.Driver) {
	t.Helper()
	m, err := n.base.Clone()
	if err != nil {
		t.Fatal(err)
	}
	drivers, err := hardware.AskDrivers(t.Context(), m, n.Program)
	if err != nil || len(drivers) != 1 {
		t.Fatalf("drivers %v, %v, gaps %v", drivers, err, m.Gaps)
	}
	return m, &drivers[0]
}

func find(t *testing.T, m *hardware.Machine, address string) *hardware.Accelerator {
	t.Helper()
	for i := range m.Accelerators {
		if m.Accelerators[i].Address == address {
			return &m.Accelerators[i]
		}
	}
	t.Fatalf("no device at %s", address)
	return nil
}

func testProbe(t *testing.T, n *rig) {
	cuda := filepath.Join(n.Dir, "libcuda.so.550.54.15")
	if err := os.WriteFile(cuda, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	m, driver := ask(t, n)
	first, second := find(t, m, nvmltest.First), find(t, m, nvmltest.Second)
	if first.Model != "H100 80GB HBM3" || first.Memory != 85520809984 || first.Firmware != "96.00.74.00.01" || first.Architecture != "sm_90" || first.DriverVersion != "550.54.15" {
		t.Errorf("first GPU %+v", first)
	}
	want := map[string]any{"generation": "Hopper", "ecc": true, "mig": false, "mps": true, "nvlinkVersion": 4.0}
	for name, value := range want {
		if first.Attributes[name] != value {
			t.Errorf("attribute %s is %v, want %v", name, first.Attributes[name], value)
		}
	}
	if first.Health.State != "ok" || second.Health.State != "degraded" {
		t.Errorf("health %+v and %+v", first.Health, second.Health)
	}
	sick := strings.Join(second.Health.Reasons, "; ")
	for _, reason := range []string{"2 uncorrectable memory errors", "rows wait to be remapped", "slowed down by heat"} {
		if !strings.Contains(sick, reason) {
			t.Errorf("health %q does not name %s", sick, reason)
		}
	}
	if diff := cmp.Diff([]hardware.DeviceFile{{Host: cuda, Container: "/usr/local/nvidia/lib64/libcuda.so.1"}}, first.Files); diff != "" {
		t.Errorf("the driver's libraries (-want +got):\n%s", diff)
	}
	var profiles []string
	for _, p := range first.Profiles {
		profiles = append(profiles, p.Name)
	}
	if diff := cmp.Diff([]string{"1g.10gb", "1g.10gb+me", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"}, profiles); diff != "" {
		t.Errorf("profiles (-want +got):\n%s", diff)
	}
	if p := first.Profiles[4]; p.Slices != 4 || p.Compute != 3 || !cmp.Equal(p.Starts, []int{0, 4}) || p.Memory != 40448<<20 {
		t.Errorf("profile %+v", p)
	}
	if one, seven := first.Profiles[1].Instances, first.Profiles[0].Instances; one != 1 || seven != 7 {
		t.Errorf("got %d instances of 1g.10gb+me and %d of 1g.10gb, want 1 and 7", one, seven)
	}
	path, err := m.Between("gpu0", "gpu1")
	if err != nil || path.Proximity != hardware.Direct || path.Over[0] != "18 × nvlink by switch" || path.BytesPerSecond != 18*26562e6 {
		t.Errorf("between the two: %+v, %v", path, err)
	}
	third := &m.Accelerators[slices.IndexFunc(m.Accelerators, func(a hardware.Accelerator) bool { return a.ID == "gpu2" })]
	if third.Usable() || !strings.Contains(third.Missing[0], "no such thing") && !strings.Contains(third.Missing[0], "no such GPU") {
		t.Errorf("a GPU that NVML does not know: %+v", third)
	}
	text, err := hardware.Encode(m)
	if err != nil || bytes.Contains(text, []byte("secret")) {
		t.Errorf("the map holds the GPU's UUID (%v)", err)
	}
	loads := hardware.AskLoads(t.Context(), m, []hardware.Driver{*driver})
	if l := loads["gpu0"]; l.Busy != 0.37 || l.Used != 1<<30 || l.Celsius != 41 || l.Watts != 312.5 {
		t.Errorf("load %+v", l)
	}
}

func testHiddenSwitches(t *testing.T, n *rig) {
	n.HideSwitches()
	m, _ := ask(t, n)
	if path, err := m.Between("gpu0", "gpu1"); err != nil || path.Proximity != hardware.Direct || path.Over[0] != "18 × nvlink by switch" {
		t.Errorf("between the two: %+v, %v", path, err)
	}
}

// What keeps NVML from work is said of each GPU, with the next step.
func testNVMLCannotWork(t *testing.T, n *rig) {
	for fail, want := range map[string]string{
		"nvmlInit_v2=9": "modprobe nvidia", "nvmlInit_v2=18": "different versions", "nvmlInit_v2=4": "run as root", "nvmlInit_v2=17": "/dev/nvidiactl",
		"nvmlDeviceGetHandleByPciBusId_v2=15": "fell off the bus", "nvmlDeviceGetHandleByPciBusId_v2=14": "infoROM",
	} {
		n.Fail(fail)
		m, _ := ask(t, n)
		a := find(t, m, nvmltest.First)
		if said := strings.Join(append(a.Missing, a.Health.Reasons...), " "); a.Usable() || !strings.Contains(said, want) {
			t.Errorf("%s: %q (%s), want %q", fail, said, a.Health.State, want)
		}
	}
	n.Fail()
	if err := os.Remove(n.Library); err != nil {
		t.Fatal(err)
	}
	m, _ := ask(t, n)
	if a := find(t, m, nvmltest.First); a.Usable() || !strings.Contains(a.Missing[0], "install the libraries of NVIDIA's driver") {
		t.Errorf("without the library: %+v", a.Missing)
	}
}

func testEvents(t *testing.T, n *rig) {
	n.Events("0 8 79", "1 2 0", "1 10 0", "1 10 0", "0 10 0")
	_, driver := ask(t, n)
	ctx, cancel := contextWithDeadline(t)
	var got []string
	err := driver.Events(ctx, func(e hardware.DriverEvent) {
		got = append(got, e.Device+" "+e.Kind+" "+e.State+" "+e.Text)
		if len(got) == 3 {
			cancel()
		}
	})
	want := []string{
		nvmltest.First + " xid lost Xid 79: the GPU fell off the bus", nvmltest.Second + " ecc degraded uncorrectable memory error",
		nvmltest.Second + " clocks degraded slowed down by heat",
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("events, %v (-want +got):\n%s", err, diff)
	}
}

// TestLayouts compares the structs with the C compiler's, of NVIDIA's own
// nvml.h where the module cache has it.
func TestLayouts(t *testing.T) {
	dir := nvmltest.Sources(t)
	headers := []string{filepath.Join(dir, "subset.h")}
	if real := realHeader(t, dir); real != "" {
		headers = append(headers, real)
		// Types and signatures of the stand-in are NVIDIA's.
		nvmltest.Compile(t, filepath.Join(dir, "standin.c"), real, filepath.Join(dir, "checked.so"), "-shared", "-fPIC")
	} else {
		t.Log("NVIDIA's nvml.h is not at hand: go mod download github.com/NVIDIA/go-nvml@v0.13.4-1 brings it")
	}
	want := map[string]uintptr{
		"nvmlPciInfo_t": unsafe.Sizeof(pciInfo{}), "nvmlPciInfo_t.domain": unsafe.Offsetof(pciInfo{}.domain), "nvmlPciInfo_t.device": unsafe.Offsetof(pciInfo{}.device),
		"nvmlPciInfo_t.pciSubSystemId": unsafe.Offsetof(pciInfo{}.pciSubSystem), "nvmlPciInfo_t.busId": unsafe.Offsetof(pciInfo{}.busID),
		"nvmlMemory_t": unsafe.Sizeof(memory{}), "nvmlMemory_t.used": unsafe.Offsetof(memory{}.used),
		"nvmlMemory_v2_t": unsafe.Sizeof(memoryV2{}), "nvmlMemory_v2_t.total": unsafe.Offsetof(memoryV2{}.total), "nvmlMemory_v2_t.used": unsafe.Offsetof(memoryV2{}.used),
		"nvmlUtilization_t": unsafe.Sizeof(utilization{}),
		"nvmlFieldValue_t":  unsafe.Sizeof(fieldValue{}), "nvmlFieldValue_t.valueType": unsafe.Offsetof(fieldValue{}.valueType),
		"nvmlFieldValue_t.nvmlReturn": unsafe.Offsetof(fieldValue{}.returned), "nvmlFieldValue_t.value": unsafe.Offsetof(fieldValue{}.value),
		"nvmlGpuInstancePlacement_t": unsafe.Sizeof(placement{}), "nvmlGpuInstanceProfileInfo_t": unsafe.Sizeof(profileInfo{}),
		"nvmlGpuInstanceProfileInfo_t.sliceCount": unsafe.Offsetof(profileInfo{}.slices), "nvmlGpuInstanceProfileInfo_t.memorySizeMB": unsafe.Offsetof(profileInfo{}.memoryMB),
		"nvmlGpuInstanceInfo_t": unsafe.Sizeof(instanceInfo{}), "nvmlGpuInstanceInfo_t.id": unsafe.Offsetof(instanceInfo{}.id), "nvmlGpuInstanceInfo_t.placement": unsafe.Offsetof(instanceInfo{}.placement),
		"nvmlComputeInstanceProfileInfo_t": unsafe.Sizeof(computeProfileInfo{}), "nvmlComputeInstanceProfileInfo_t.sliceCount": unsafe.Offsetof(computeProfileInfo{}.slices),
		"nvmlComputeInstanceInfo_t": unsafe.Sizeof(computeInfo{}), "nvmlComputeInstanceInfo_t.id": unsafe.Offsetof(computeInfo{}.id),
		"nvmlEventData_t": unsafe.Sizeof(eventData{}), "nvmlEventData_t.eventType": unsafe.Offsetof(eventData{}.eventType), "nvmlEventData_t.eventData": unsafe.Offsetof(eventData{}.data),
		"nvmlEventData_t.gpuInstanceId": unsafe.Offsetof(eventData{}.gpuInstance), "nvmlEventData_t.computeInstanceId": unsafe.Offsetof(eventData{}.computeInstance),
	}
	for _, header := range headers {
		program := filepath.Join(dir, "layout")
		nvmltest.Compile(t, filepath.Join(dir, "layout.c"), header, program)
		if diff := cmp.Diff(want, printed(t, program)); diff != "" {
			t.Errorf("%s (-Go +C):\n%s", header, diff)
		}
	}
}

// realHeader writes NVIDIA's nvml.h from go-nvml in the module cache, whose
// handles are structs of one pointer for Go's sake, with handles as in C.
func realHeader(t *testing.T, dir string) string {
	t.Helper()
	cache, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		return ""
	}
	found, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(cache)), "github.com/!n!v!i!d!i!a/go-nvml@*/pkg/nvml/nvml.h"))
	if err != nil || len(found) == 0 {
		return ""
	}
	text, err := os.ReadFile(found[len(found)-1])
	if err != nil {
		t.Fatal(err)
	}
	handle := regexp.MustCompile(`typedef struct\s*\{\s*struct (\w+)\s*\*\s*handle;\s*\}\s*(\w+);`)
	file := filepath.Join(dir, "nvml.h")
	if err := os.WriteFile(file, handle.ReplaceAll(text, []byte("typedef struct $1 *$2;")), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestRealLibrary loads NVIDIA's own library, where OSCINE_NVML names one: it
// has every function that the package calls and, without a driver, says so.
func TestRealLibrary(t *testing.T) {
	file := os.Getenv("OSCINE_NVML")
	if file == "" {
		t.Skip("needs NVIDIA's libnvidia-ml.so.1: name it in OSCINE_NVML (Debian: libnvidia-ml1)")
	}
	l, err := Open(file)
	var e *Error
	if err == nil {
		defer l.Close()
	} else if !errors.As(err, &e) || e.Code != DriverNotLoaded || !strings.Contains(err.Error(), "modprobe nvidia") {
		t.Fatalf("got %v, want that the kernel driver is not loaded", err)
	}
	probe := &Library{symbols: map[string]uintptr{}}
	if missing, err := probe.missing(file); err != nil || len(missing) > 0 {
		t.Errorf("%s lacks %v, %v", file, missing, err)
	}
}
