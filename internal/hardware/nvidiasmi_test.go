package hardware

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/hardware/hardwaretest"
)

// smiProgram is a program that prints what nvidia-smi would of two GPUs.
func smiProgram(t *testing.T) string {
	t.Helper()
	gpu := func(id, more string) string {
		return `<gpu id="` + id + `"><product_name>NVIDIA H100 80GB HBM3</product_name><product_architecture>Hopper</product_architecture>
<uuid>GPU-secret</uuid><vbios_version>96.00.74.00.01</vbios_version><fb_memory_usage><total>81559 MiB</total><used>1024 MiB</used></fb_memory_usage>
<utilization><gpu_util>37 %</gpu_util></utilization><temperature><gpu_temp>41 C</gpu_temp></temperature>
<gpu_power_readings><power_draw>312.50 W</power_draw></gpu_power_readings>` + more + `</gpu>`
	}
	log := `<?xml version="1.0" ?><!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd"><nvidia_smi_log><driver_version>550.54.15</driver_version>` +
		gpu("00000000:13:00.0", `<mig_devices><mig_device><gpu_instance_id>1</gpu_instance_id><compute_instance_id>0</compute_instance_id>
<fb_memory_usage><total>9856 MiB</total></fb_memory_usage></mig_device></mig_devices>`) +
		gpu("00000000:14:00.0", `<ecc_errors><volatile><dram_uncorrectable>2</dram_uncorrectable></volatile></ecc_errors>`) + `</nvidia_smi_log>`
	matrix := "\t\x1b[4mGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\x1b[0m\nGPU0\t X \tNV18\tPIX\t0-31,64-95\t0\nGPU1\tNV18\t X \tPIX\t0-31,64-95\t0\nNIC0\tPIX\tPIX\t X \n"
	program := filepath.Join(t.TempDir(), "nvidia-smi")
	script := "#!/bin/sh\ncase \"$*\" in\n'-q -x') cat <<'E'\n" + log + "\nE\n;;\n'topo -m') cat <<'E'\n" + matrix + "E\n;;\nesac\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return program
}

func TestAskNVIDIA(t *testing.T) {
	m := described(t, hardwaretest.Server8GPU())
	loads, err := AskNVIDIA(t.Context(), m, smiProgram(t))
	if err != nil {
		t.Fatal(err)
	}
	gpu0, gpu1 := m.accelerator("gpu0"), m.accelerator("gpu1")
	if gpu0.Memory != 81559<<20 || gpu0.Firmware != "96.00.74.00.01" || gpu0.Partitions[0].Memory != 9856<<20 {
		t.Errorf("gpu0 = %+v", gpu0)
	}
	if gpu1.Health.State != "degraded" || !strings.Contains(gpu1.Health.Reasons[0], "memory errors") {
		t.Errorf("gpu1 health %+v", gpu1.Health)
	}
	if l := loads["gpu0"]; l.Busy != 0.37 || l.Used != 1<<30 || l.Celsius != 41 || l.Watts != 312.5 {
		t.Errorf("load of gpu0 %+v", l)
	}
	p, err := m.Between("gpu0", "gpu1")
	if err != nil || p.Proximity != Direct || p.Over[0] != "18 × nvlink" || p.BytesPerSecond != 450e9 {
		t.Errorf("gpu0 to gpu1: %+v, %v", p, err)
	}
	data, err := Encode(m)
	if err != nil || strings.Contains(string(data), "secret") {
		t.Errorf("the map holds the GPU's UUID (%v)", err)
	}
}

func TestAskNVIDIAWithout(t *testing.T) {
	laptop := described(t, hardwaretest.HybridLaptop())
	if loads, err := AskNVIDIA(t.Context(), laptop, "/no/such/program"); loads != nil || err != nil {
		t.Errorf("without an NVIDIA GPU: %v, %v", loads, err)
	}
	server := described(t, hardwaretest.Server8GPU())
	if _, err := AskNVIDIA(t.Context(), server, "/no/such/program"); err == nil {
		t.Error("a missing program is no error")
	}
}

func FuzzSMI(f *testing.F) {
	f.Add(`<nvidia_smi_log><gpu id="00000000:13:00.0"><fb_memory_usage><total>9 MiB</total></fb_memory_usage></gpu></nvidia_smi_log>`, "GPU0 X NV4\nGPU1 NV4 X")
	f.Fuzz(func(t *testing.T, log, matrix string) {
		m := described(t, hardwaretest.HybridLaptop())
		if _, order, err := mergeSMI(m, []byte(log), "smi"); err == nil {
			mergeSMIMatrix(m, matrix, order, "smi")
		}
		useEverything(t, m)
	})
}
