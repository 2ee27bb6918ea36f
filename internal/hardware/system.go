package hardware

import (
	"fmt"
	"strconv"
	"strings"
)

// system reads what names the machine as a whole. Serial numbers, UUIDs and
// host names are never read.
func (s *scan) system() {
	y := &s.m.System
	for _, dir := range []string{"/sys/devices/virtual/dmi/id", "/sys/class/dmi/id"} {
		if s.exists(dir) {
			y.Vendor, _ = s.text(dir + "/sys_vendor")
			y.Product, _ = s.text(dir + "/product_name")
			break
		}
	}
	const base = "/sys/firmware/devicetree/base"
	y.Model, _ = s.text(base + "/model")
	if text, ok := s.text(base + "/compatible"); ok {
		y.Compatible = strings.Split(strings.TrimRight(text, "\x00"), "\x00")
	}
	y.Kernel, _ = s.text("/proc/sys/kernel/osrelease")
	y.Architecture, _ = s.text("/proc/sys/kernel/arch") // Linux 6.1 and later
	s.recordedBy("/proc/hwloc-nofile-info")
	s.linkAttributes = atLeast(y.Kernel, 4, 13)
	y.Memory = s.memoryOf("/proc/meminfo")
	y.HugePages = s.hugePages("/sys/kernel/mm/hugepages")
	s.processor()
	s.commandLine()
}

// atLeast reports whether a kernel release such as "6.1.0-13-amd64" is known
// to be at least major.minor.
func atLeast(release string, major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(release, "%d.%d", &a, &b); n < 2 {
		return false
	}
	return a > major || a == major && b >= minor
}

// recordedBy reads what hwloc-gather-topology adds to a recorded tree.
func (s *scan) recordedBy(file string) {
	text, _ := s.text(file)
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "OSRelease":
			s.m.System.Kernel = value
		case "Architecture":
			s.m.System.Architecture = value
		}
	}
}

// processor reads vendor, model and instruction sets of the first CPU.
func (s *scan) processor() {
	data, err := s.read("/proc/cpuinfo", 4*maxAttribute)
	if err != nil {
		return
	}
	y := &s.m.System
	family, model, implementer := "", "", uint64(0)
	for line := range strings.Lines(string(data)) {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			if y.CPUModel != "" || y.CPUVendor != "" {
				break // end of the first CPU
			}
			continue
		}
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch key {
		case "vendor_id", "vendor":
			y.CPUVendor = value
		case "mvendorid":
			y.CPUVendor = riscvVendor(value)
		case "CPU Family": // LoongArch: Loongson-64bit
			y.CPUVendor, _, _ = strings.Cut(value, "-")
		case "model name", "Model Name", "cpu model", "cpu", "Processor", "uarch":
			y.CPUModel = value
		case "processor 0": // s390: version = 00,  identification = 4729E7,  machine = 2964
			_, machine, _ := strings.Cut(value, "machine = ")
			y.CPUModel = strings.TrimSpace("machine type " + machine)
		case "cpu family":
			family = value
		case "model":
			model = value
		case "CPU implementer":
			y.CPUVendor = armImplementer(value)
			implementer, _ = strconv.ParseUint(value, 0, 16)
		case "CPU part":
			if part, err := strconv.ParseUint(value, 0, 16); err == nil && y.CPUModel == "" {
				y.CPUModel = armCore(implementer, part)
			}
		case "flags", "Features", "features":
			y.Instructions = aiInstructions(strings.Fields(value))
		case "isa":
			y.Instructions = riscvInstructions(value)
		}
	}
	s.nearMemory = y.CPUVendor == "GenuineIntel" && family == "6" && (model == "87" || model == "133")
	s.computeUnits = y.CPUVendor == "AuthenticAMD" && (family == "21" || family == "22")
}

// commandLine keeps the parameters that change what the map shows.
func (s *scan) commandLine() {
	text, _ := s.text("/proc/cmdline")
	for _, arg := range strings.Fields(text) {
		if shapesMap(arg) {
			s.m.System.Cmdline = append(s.m.System.Cmdline, clip(arg))
		}
		s.fakeNodes = s.fakeNodes || strings.HasPrefix(arg, "numa=fake=")
	}
}

// shapesMap reports whether a kernel parameter changes what the map shows.
// The others are left out: some hold secrets.
func shapesMap(arg string) bool {
	name, _, _ := strings.Cut(arg, "=")
	switch name {
	case "isolcpus", "nohz_full", "rcu_nocbs", "numa", "maxcpus", "nr_cpus", "nosmt", "mem", "hugepages", "hugepagesz",
		"default_hugepagesz", "intel_iommu", "amd_iommu", "iommu", "pci", "pcie_aspm", "intel_pstate", "amd_pstate":
		return true
	}
	return false
}
