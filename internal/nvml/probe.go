package nvml

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/hardware"
)

// Options say where things lie that are not NVML's.
type Options struct {
	Capabilities string // "" means /proc/driver/nvidia/capabilities
	MPSControl   string // "" means nvidia-cuda-mps-control from PATH
}

func (o Options) capabilities() string {
	if o.Capabilities != "" {
		return o.Capabilities
	}
	return "/proc/driver/nvidia/capabilities"
}

const nvidiaVendor = "10de"

// Mine lists the NVIDIA GPUs of a map.
func Mine(m *hardware.Machine) []*hardware.Accelerator {
	var all []*hardware.Accelerator
	for i := range m.Accelerators {
		a := &m.Accelerators[i]
		if d := m.Device(a.Address); a.Kind == "gpu" && d != nil && d.Vendor == nvidiaVendor {
			all = append(all, a)
		}
	}
	return all
}

// Failed is the report where NVML itself cannot be used: it says of every
// NVIDIA GPU of the map that work could be given to what is missing.
func Failed(m *hardware.Machine, reason error) *hardware.DriverReport {
	r := &hardware.DriverReport{Schema: hardware.DriverSchema}
	for _, a := range Mine(m) {
		if a.Health.State == "lost" {
			continue
		}
		r.Devices = append(r.Devices, hardware.Accelerator{Bus: "pci", Address: a.Address, Kind: a.Kind, Missing: append(slices.Clone(a.Missing), reason.Error())})
	}
	return r
}

// Probe tells what NVML knows of the NVIDIA GPUs of a map.
func (l *Library) Probe(m *hardware.Machine, o Options) *hardware.DriverReport {
	r := &hardware.DriverReport{Schema: hardware.DriverSchema, Verbs: []string{"load", "events", "share"}}
	multiUser := MPS{Control: o.MPSControl}.MultiUser() == nil
	var devices []*Device
	for _, a := range Mine(m) {
		if a.Driver != "nvidia" || a.Health.State == "lost" {
			continue
		}
		d, err := l.Device(a.Address)
		if err != nil {
			r.Devices = append(r.Devices, unreachable(a, err))
			continue
		}
		devices = append(devices, d)
		r.Devices = append(r.Devices, l.describe(d, a, o, multiUser))
	}
	known := func(address string) bool { return m.Accelerator(address) != nil }
	for i, d := range devices {
		links, version := d.nvlinks(known)
		r.Links = append(r.Links, links...)
		if version > 0 {
			r.Devices[slices.IndexFunc(r.Devices, func(a hardware.Accelerator) bool { return a.Address == d.Address })].Attributes["nvlinkVersion"] = version
		}
		for _, other := range devices[i+1:] {
			if pair, ok := d.pair(other); ok {
				r.Pairs = append(r.Pairs, pair)
			}
		}
	}
	if slices.ContainsFunc(r.Links, func(l hardware.Link) bool { return l.B == fabric }) {
		r.Devices = append(r.Devices, hardware.Accelerator{Kind: "switch", Bus: "virtual", Address: fabric, Vendor: "NVIDIA", Model: "NVSwitch fabric", Node: -1})
	}
	return r
}

func unreachable(a *hardware.Accelerator, err error) hardware.Accelerator {
	var e *Error
	reason := err.Error()
	if errors.As(err, &e) {
		reason = e.Error()
	}
	d := hardware.Accelerator{Bus: "pci", Address: a.Address, Kind: a.Kind}
	switch {
	case is(err, GPUIsLost):
		d.Health = hardware.Health{State: "lost", Reasons: []string{reason}}
	case is(err, ResetRequired), is(err, CorruptedInfoROM), is(err, InsufficientPower), is(err, IRQIssue):
		d.Health = hardware.Health{State: "failed", Reasons: []string{reason}}
	default:
		d.Missing = append(slices.Clone(a.Missing), reason)
	}
	return d
}

// describe tells what is known of one GPU.
func (l *Library) describe(d *Device, a *hardware.Accelerator, o Options, multiUser bool) hardware.Accelerator {
	r := hardware.Accelerator{Bus: "pci", Address: d.Address, Kind: a.Kind, Vendor: "NVIDIA", DriverVersion: l.driver, Attributes: map[string]any{}}
	r.Model = strings.TrimPrefix(d.words("nvmlDeviceGetName", 96), "NVIDIA ")
	r.Firmware = d.words("nvmlDeviceGetVbiosVersion", 32)
	total, _ := d.memory()
	r.Memory = hardware.Bytes(total)
	major, minor := d.capability()
	if major > 0 {
		r.Architecture = fmt.Sprintf("sm_%d%d", major, minor)
	}
	if generation := d.architecture(); generation != "" {
		r.Attributes["generation"] = generation
	}
	if node, err := d.Minor(); err == nil {
		r.DeviceNodes = []string{fmt.Sprintf("/dev/nvidia%d", node), "/dev/nvidiactl", "/dev/nvidia-uvm"}
		if slices.Contains(a.DeviceNodes, "/dev/nvidia-uvm-tools") {
			r.DeviceNodes = append(r.DeviceNodes, "/dev/nvidia-uvm-tools")
		}
	}
	r.Files = l.files()
	r.Health = merged(a.Health, d.health())
	r.Attributes["ecc"], _ = d.ecc()
	// MPS with processors and memory of one's own came with Volta.
	r.Attributes["mps"] = multiUser && major >= 7
	if on, capable := d.migMode(); capable {
		r.Attributes["mig"] = on
		for _, p := range d.profiles() {
			r.PartitionModes = append(r.PartitionModes, p.Name)
			r.Profiles = append(r.Profiles, p.PartitionProfile)
		}
		all, err := d.instances()
		if err == nil {
			r.Partitions = d.partitions(o.capabilities(), all)
		}
	}
	return r
}

// merged keeps what the kernel reported of a GPU's health beside NVML's report.
func merged(kernel, nvml hardware.Health) hardware.Health {
	if kernel.State != "degraded" {
		return nvml
	}
	for _, reason := range nvml.Reasons {
		if !slices.Contains(kernel.Reasons, reason) {
			kernel.Reasons = append(slices.Clone(kernel.Reasons), reason)
		}
	}
	return kernel
}
