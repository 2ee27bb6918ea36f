package hardware

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestRecordedH200 reads a recorded machine with NVIDIA's H200 and driver
// 580.159.04, and what oscine-nvml answered on it.
func TestRecordedH200(t *testing.T) {
	m, err := Discover("testdata/h200/record.tar.zst")
	if err != nil {
		t.Fatal(err)
	}
	if a := m.Accelerator("gpu0"); a == nil || a.Driver != "nvidia" || a.DriverVersion != "580.159.04" || a.Model != "H200" || !a.Usable() {
		t.Fatalf("as the kernel has it: %+v", a)
	}
	probe, err := filepath.Abs("testdata/h200/probe.json")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "oscine-nvml")
	if err := os.WriteFile(program, []byte("#!/bin/sh\ncat >/dev/null\ncat '"+probe+"'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	drivers, err := AskDrivers(t.Context(), m, program)
	if err != nil || len(drivers) != 1 || !drivers[0].Can("share") {
		t.Fatalf("drivers %+v, %v, gaps %v", drivers, err, m.Gaps)
	}
	a := m.Accelerator("gpu0")
	if !a.Usable() || a.Memory != 150754820096 || a.Architecture != "sm_90" || a.Firmware != "96.00.A5.00.1A" || a.Health.State != "ok" ||
		a.Attributes["mig"] != false || a.Attributes["mps"] != true || a.Attributes["ecc"] != true {
		t.Errorf("with its driver: %+v", a)
	}
	largest := a.Profiles[len(a.Profiles)-1]
	if len(a.Profiles) != 7 || largest.Name != "7g.141gb" || largest.Compute != 7 || !slices.Equal(a.Profiles[4].Starts, []int{0, 4}) {
		t.Errorf("profiles %+v", a.Profiles)
	}
	specs := CDI(m)
	if len(specs) != 1 || specs[0].Kind != "oscine.dev/gpu" || specs[0].Devices[0].Name != "gpu0" {
		t.Fatalf("CDI %+v", specs)
	}
	edits := specs[0].Devices[0].ContainerEdits
	if len(edits.DeviceNodes) != 4 || edits.DeviceNodes[0].Path != "/dev/nvidia0" || len(edits.Mounts) != 7 ||
		edits.Mounts[0].HostPath != "/usr/local/nvidia/lib64/libcuda.so.580.159.04" || edits.Mounts[0].ContainerPath != DriverLibraries+"/libcuda.so.1" {
		t.Errorf("container edits %+v", edits)
	}
}
