package hardware

import (
	"strconv"
	"strings"
)

// amdgpu reads the attributes of the amdgpu driver; see
// Documentation/gpu/amdgpu/driver-misc.rst.
func (s *scan) amdgpu(a *Accelerator, dir string) {
	if name, ok := s.text(dir + "/product_name"); ok && name != "" {
		a.Model = name
		s.fact(a, "model", name, dir+"/product_name")
	}
	if n, ok := s.positive(dir + "/mem_info_vram_total"); ok {
		a.Memory = Bytes(n)
		s.fact(a, "memory", a.Memory.String(), dir+"/mem_info_vram_total")
	}
	if v, ok := s.text(dir + "/vbios_version"); ok {
		a.Firmware = v
		s.fact(a, "firmware", v, dir+"/vbios_version")
	}
	if modes, ok := s.text(dir + "/available_compute_partition"); ok {
		for _, mode := range strings.Split(modes, ",") {
			a.PartitionModes = append(a.PartitionModes, strings.TrimSpace(mode))
		}
		s.fact(a, "partition modes", modes, dir+"/available_compute_partition")
	}
	if s.exists("/dev/kfd") || s.exists("/sys/class/kfd/kfd") {
		a.DeviceNodes = append(a.DeviceNodes, "/dev/kfd")
	}
}

// intelGPU reads the local memory of an Intel GPU: the driver's attribute, or
// else the size of the memory BAR (2), which covers it on resizable-BAR hosts.
func (s *scan) intelGPU(a *Accelerator, dir string) {
	s.xeTiles(a, dir)
	for _, name := range s.dir(dir + "/drm") {
		if n, ok := s.positive(dir + "/drm/" + name + "/lmem_total_bytes"); ok {
			a.Memory = Bytes(n)
			s.fact(a, "memory", a.Memory.String(), dir+"/drm/"+name+"/lmem_total_bytes")
			return
		}
	}
	if a.Memory > 0 {
		return // of its tiles, or of the table
	}
	const smallest = 1 << 30 // an integrated GPU has an aperture, not memory
	if size := s.barSize(dir+"/resource", 2); size >= smallest {
		a.Memory = size
		s.fact(a, "memory", size.String(), dir+"/resource")
	}
}

// barSize is the size of a base address register, from sysfs' "resource":
// one line for each with start, end and flags in hexadecimal.
func (s *scan) barSize(file string, bar int) Bytes {
	text, _ := s.text(file)
	lines := strings.Split(text, "\n")
	if bar >= len(lines) {
		return 0
	}
	f := strings.Fields(lines[bar])
	if len(f) != 3 {
		return 0
	}
	start, err1 := strconv.ParseUint(strings.TrimPrefix(f[0], "0x"), 16, 64)
	end, err2 := strconv.ParseUint(strings.TrimPrefix(f[1], "0x"), 16, 64)
	if err1 != nil || err2 != nil || end <= start || end-start >= 1<<50 {
		return 0
	}
	return Bytes(end - start + 1)
}

// errorCounters reads the PCI Express error counts (AER) and the memory error
// counts of the drivers that have them. Corrected errors are the link's daily
// life; fatal and uncorrectable ones degrade the device.
func (s *scan) errorCounters(a *Accelerator, dir string) {
	for _, c := range []struct{ file, total, what string }{
		{"aer_dev_fatal", "TOTAL_ERR_FATAL", "fatal PCI errors"},
		{"aer_dev_nonfatal", "TOTAL_ERR_NONFATAL", "uncorrected PCI errors"},
		{"ras/umc_err_count", "ue:", "uncorrectable memory errors"},
	} {
		text, ok := s.text(dir + "/" + c.file)
		if !ok {
			continue
		}
		_, rest, _ := strings.Cut(text, c.total)
		f := strings.Fields(rest)
		if len(f) == 0 {
			continue
		}
		if n, err := strconv.Atoi(f[0]); err == nil && n > 0 {
			a.Health.State = "degraded"
			a.Health.Reasons = append(a.Health.Reasons, f[0]+" "+c.what)
			s.fact(a, c.what, f[0], dir+"/"+c.file)
		}
	}
}
