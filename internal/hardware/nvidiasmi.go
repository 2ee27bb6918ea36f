package hardware

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// smiLog is the part that is used of nvidia-smi -q -x, which asks NVML; its
// elements are described in nvsmi_device_v12.dtd.
type smiLog struct {
	XMLName xml.Name `xml:"nvidia_smi_log"`
	Driver  string   `xml:"driver_version"`
	GPUs    []smiGPU `xml:"gpu"`
}

type smiGPU struct {
	ID           string   `xml:"id,attr"` // 00000000:3B:00.0
	Name         string   `xml:"product_name"`
	Architecture string   `xml:"product_architecture"`
	VBIOS        string   `xml:"vbios_version"`
	Total        string   `xml:"fb_memory_usage>total"`
	Used         string   `xml:"fb_memory_usage>used"`
	Busy         string   `xml:"utilization>gpu_util"`
	Temperature  string   `xml:"temperature>gpu_temp"`
	Power        []string `xml:"gpu_power_readings>power_draw"`
	PowerNow     []string `xml:"gpu_power_readings>instant_power_draw"`
	PowerOld     []string `xml:"power_readings>power_draw"`
	Volatile     []string `xml:"ecc_errors>volatile>dram_uncorrectable"`
	RowsPending  string   `xml:"remapped_rows>remapped_row_pending"`
	RowsFailed   string   `xml:"remapped_rows>remapped_row_failure"`
	HotNow       string   `xml:"clocks_event_reasons>clocks_event_reason_hw_thermal_slowdown"`
	HotOld       string   `xml:"clocks_throttle_reasons>clocks_throttle_reason_hw_thermal_slowdown"`
	MIG          []smiMIG `xml:"mig_devices>mig_device"`
}

type smiMIG struct {
	GPUInstance     string `xml:"gpu_instance_id"`
	ComputeInstance string `xml:"compute_instance_id"`
	Total           string `xml:"fb_memory_usage>total"`
}

// AskNVIDIA completes the NVIDIA GPUs of a map by what NVML knows, through
// NVIDIA's own program that comes with every driver: memory, MIG instances,
// memory errors, NVLink. It changes m, and returns the loads of the GPUs by
// ID. program is nvidia-smi's path. It does nothing where the map has no
// NVIDIA GPU in use.
func AskNVIDIA(ctx context.Context, m *Machine, program string) (map[string]DeviceLoad, error) {
	if !slices.ContainsFunc(m.Accelerators, func(a Accelerator) bool { return a.Driver == "nvidia" && a.Kind == "gpu" }) {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, driverTimeout)
	defer cancel()
	log, err := runSMI(ctx, program, "-q", "-x")
	if err != nil {
		return nil, err
	}
	loads, order, err := mergeSMI(m, log, program)
	if err != nil {
		return nil, err
	}
	if len(order) > 1 {
		matrix, err := runSMI(ctx, program, "topo", "-m")
		if err != nil {
			return loads, err
		}
		mergeSMIMatrix(m, string(matrix), order, program)
	}
	return loads, nil
}

func runSMI(ctx context.Context, program string, args ...string) ([]byte, error) {
	var out bounded
	c := exec.CommandContext(ctx, program, args...)
	c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	c.Stdout = &out
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w", program, strings.Join(args, " "), err)
	}
	return out.data, nil
}

// mergeSMI takes over the log and returns the loads and the IDs of the GPUs in
// the log's order.
func mergeSMI(m *Machine, data []byte, program string) (map[string]DeviceLoad, []string, error) {
	if m.Facts == nil {
		m.Facts = map[string][]Fact{}
	}
	var log smiLog
	if err := xml.Unmarshal(data, &log); err != nil {
		return nil, nil, fmt.Errorf("%s -q -x: %w", program, err)
	}
	loads := map[string]DeviceLoad{}
	var order []string
	for _, g := range log.GPUs {
		address, ok := smiAddress(g.ID)
		a := m.accelerator(address)
		if !ok || a == nil {
			order = append(order, "")
			continue
		}
		order = append(order, a.ID)
		g.complete(m, a, program)
		loads[a.ID] = g.load()
	}
	if len(order) == 0 {
		return nil, nil, errors.New(program + " -q -x: tells of no GPU")
	}
	return loads, order, nil
}

// smiAddress turns NVML's 32-bit domain into the kernel's spelling.
func smiAddress(id string) (string, bool) {
	address, ok := pciAddress(strings.TrimSpace(id))
	if head, rest, cut := strings.Cut(address, ":"); ok && cut && len(head) == 8 && strings.HasPrefix(head, "0000") {
		return head[4:] + ":" + rest, true
	}
	return address, ok
}

// complete adds to an accelerator what NVML knows of it.
func (g *smiGPU) complete(m *Machine, a *Accelerator, program string) {
	fact := func(name, value string) {
		m.Facts[a.ID] = append(m.Facts[a.ID], Fact{name, value, program + " -q -x"})
	}
	if total := smiBytes(g.Total); total > 0 {
		a.Memory = total
		fact("memory", total.String())
	}
	if g.Name != "" {
		a.Model = strings.TrimPrefix(g.Name, "NVIDIA ")
	}
	if g.VBIOS != "" && g.VBIOS != "N/A" {
		a.Firmware = g.VBIOS
		fact("firmware", g.VBIOS)
	}
	for i := range a.Partitions {
		for _, mig := range g.MIG {
			if a.Partitions[i].ID == a.ID+"-mig"+mig.GPUInstance+"-"+mig.ComputeInstance {
				a.Partitions[i].Memory = smiBytes(mig.Total)
			}
		}
	}
	for _, sick := range []struct {
		yes bool
		why string
	}{
		{slices.ContainsFunc(g.Volatile, func(n string) bool { return smiNumber(n) > 0 }), "uncorrectable memory errors since the driver was loaded"},
		{g.RowsPending == "Yes", "memory rows wait to be remapped: reset the GPU when it is idle"},
		{g.RowsFailed == "Yes", "memory rows could not be remapped: replace the GPU"},
		{g.HotNow == "Active" || g.HotOld == "Active", "slowed down by heat"},
	} {
		if sick.yes && !slices.Contains(a.Health.Reasons, sick.why) {
			a.Health.State = "degraded"
			a.Health.Reasons = append(a.Health.Reasons, sick.why)
		}
	}
	(&scan{m: m}).finish(a)
	if g.Architecture != "" {
		a.Attributes["generation"] = g.Architecture
	}
}

func (g *smiGPU) load() DeviceLoad {
	l := DeviceLoad{Busy: -1, Used: smiBytes(g.Used), Celsius: smiNumber(g.Temperature)}
	if strings.HasSuffix(g.Busy, "%") {
		l.Busy = smiNumber(g.Busy) / 100
	}
	for _, power := range slices.Concat(g.Power, g.PowerNow, g.PowerOld) {
		if l.Watts == 0 {
			l.Watts = smiNumber(power)
		}
	}
	return l
}

// smiNumber reads "34 C", "70.32 W", "N/A".
func smiNumber(text string) float64 {
	number, _, _ := strings.Cut(strings.TrimSpace(text), " ")
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !(n >= 0 && n < 1e9) {
		return 0
	}
	return n
}

// smiBytes reads "81559 MiB".
func smiBytes(text string) Bytes {
	if !strings.HasSuffix(text, "MiB") {
		return 0
	}
	return Bytes(smiNumber(text)) << 20
}

var terminalCodes = regexp.MustCompile("\x1b\\[[0-9;]*m")

// mergeSMIMatrix takes the NVLinks from nvidia-smi topo -m: a table of GPUs
// and adapters whose cells for linked GPUs are NV and the count of links.
func mergeSMIMatrix(m *Machine, text string, order []string, program string) {
	for line := range strings.Lines(terminalCodes.ReplaceAllString(text, "")) {
		f := strings.Fields(line)
		if len(f) < 2 || !strings.HasPrefix(f[0], "GPU") {
			continue
		}
		row, err := strconv.Atoi(f[0][3:])
		if err != nil || row < 0 || row >= len(order) || len(f) < len(order)+1 {
			continue // the heading, or a cut line
		}
		for column := row + 1; column < len(order); column++ {
			digits, ok := strings.CutPrefix(f[column+1], "NV")
			count, err := strconv.Atoi(digits)
			if !ok || err != nil || count <= 0 || count > 1024 || order[row] == "" || order[column] == "" {
				continue
			}
			if m.linkBetween(order[row], order[column]) == nil {
				m.Links = append(m.Links, Link{A: order[row], B: order[column], Kind: "nvlink", Count: count,
					BytesPerSecond: float64(count) * m.nvlinkOf(order[row]), Source: program + " topo -m"})
			}
		}
	}
}

// nvlinkOf is the bandwidth of one link of a GPU in one direction, by its
// generation; NVIDIA, "NVLink and NVSwitch".
func (m *Machine) nvlinkOf(id string) float64 {
	a := m.accelerator(id)
	if a == nil {
		return 0
	}
	switch a.Attributes["generation"] {
	case "Pascal":
		return 20e9
	case "Volta", "Turing", "Ampere", "Hopper":
		return 25e9
	case "Blackwell":
		return 50e9
	}
	return 0
}
