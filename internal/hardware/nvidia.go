package hardware

import (
	"path"
	"strconv"
	"strings"
)

// nvidia reads what the NVIDIA kernel driver shows without NVML: procfs has
// the model, firmware, device minor and MIG instances of each GPU.
func (s *scan) nvidia(a *Accelerator) {
	dir := "/proc/driver/nvidia/gpus/" + a.Address
	file := dir + "/information"
	text, _ := s.text(file)
	minor := -1
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "Model":
			a.Model = strings.TrimPrefix(value, "NVIDIA ")
			s.fact(a, "model", a.Model, file)
		case "GPU Firmware":
			if value != "N/A" {
				a.Firmware = value
				s.fact(a, "firmware", value, file)
			}
		case "Device Minor":
			if n, err := strconv.Atoi(value); err == nil && n >= 0 {
				minor = n
			}
		}
	}
	s.nvidiaVersion(a)
	if minor < 0 {
		return
	}
	node := "/dev/nvidia" + strconv.Itoa(minor)
	a.DeviceNodes = append([]string{node}, a.DeviceNodes...)
	s.fact(a, "device node", node, file)
	a.DeviceNodes = append(a.DeviceNodes, "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
	s.migInstances(a, minor)
}

// nvidiaVersion reads "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54".
func (s *scan) nvidiaVersion(a *Accelerator) {
	const file = "/proc/driver/nvidia/version"
	text, _ := s.text(file)
	first, _, _ := strings.Cut(text, "\n")
	for _, field := range strings.Fields(first) {
		if strings.Count(field, ".") >= 1 && strings.Trim(field, "0123456789.") == "" {
			a.DriverVersion = field
			s.fact(a, "driver version", field, file)
			return
		}
	}
}

// migInstances lists the MIG compute instances: each is reached through two
// capability device nodes, of its GPU instance and of itself.
func (s *scan) migInstances(a *Accelerator, minor int) {
	root := "/proc/driver/nvidia/capabilities/gpu" + strconv.Itoa(minor) + "/mig"
	for _, gi := range s.numbered(root, "gi").IDs() {
		giDir := path.Join(root, "gi"+strconv.Itoa(gi))
		for _, ci := range s.numbered(giDir, "ci").IDs() {
			p := Partition{ID: "mig" + strconv.Itoa(gi) + "-" + strconv.Itoa(ci), Profile: "mig"}
			for _, access := range []string{giDir + "/access", path.Join(giDir, "ci"+strconv.Itoa(ci), "access")} {
				text, _ := s.text(access)
				if node := MIGNode(text); node != "" {
					p.DeviceNodes = append(p.DeviceNodes, node)
				}
			}
			if len(p.DeviceNodes) == 2 {
				a.Partitions = append(a.Partitions, p)
				s.fact(a, "partition", p.ID, giDir)
			}
		}
	}
}

// MIGNode is the device node that an access file below
// /proc/driver/nvidia/capabilities stands for, "" for none.
func MIGNode(access string) string {
	_, rest, _ := strings.Cut(access, "DeviceFileMinor:")
	fields := strings.Fields(rest)
	if len(fields) == 0 || strings.Trim(fields[0], "0123456789") != "" {
		return ""
	}
	return "/dev/nvidia-caps/nvidia-cap" + fields[0]
}
