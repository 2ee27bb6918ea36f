package nvml

import (
	"fmt"
	"unsafe"

	"oscine.dev/oscine/internal/hardware"
)

// Numbers of nvml.h.
const (
	uncorrected, volatileECC = 1, 0

	slowdownThermalSoftware = 0x20
	slowdownHardware        = 0x08
	slowdownThermal         = 0x40
	slowdownPowerBrake      = 0x80
)

// ecc reports whether memory errors are corrected, and how many could not be
// since the driver was loaded.
func (d *Device) ecc() (on bool, uncorrectable uint64) {
	var current, pending uint32
	if d.l.call("nvmlDeviceGetEccMode", d.handle, uintptr(unsafe.Pointer(&current)), uintptr(unsafe.Pointer(&pending))) != nil || current == 0 {
		return false, 0
	}
	if d.l.call("nvmlDeviceGetTotalEccErrors", d.handle, uncorrected, volatileECC, uintptr(unsafe.Pointer(&uncorrectable))) != nil {
		return true, 0
	}
	return true, uncorrectable
}

// health returns the GPU's state in the map's terms.
func (d *Device) health() hardware.Health {
	h := hardware.Health{State: "ok"}
	sick := func(format string, args ...any) {
		h.State = "degraded"
		h.Reasons = append(h.Reasons, fmt.Sprintf(format, args...))
	}
	if _, n := d.ecc(); n > 0 {
		sick("%d uncorrectable memory errors since the driver was loaded", n)
	}
	var corrected, uncorrectable, pending, failed uint32
	if d.l.call("nvmlDeviceGetRemappedRows", d.handle, uintptr(unsafe.Pointer(&corrected)), uintptr(unsafe.Pointer(&uncorrectable)),
		uintptr(unsafe.Pointer(&pending)), uintptr(unsafe.Pointer(&failed))) == nil {
		if pending != 0 {
			sick("memory rows wait to be remapped: reset the GPU when it is idle")
		}
		if failed != 0 {
			sick("memory rows could not be remapped: replace the GPU")
		}
	} else if waits, err := d.number("nvmlDeviceGetRetiredPagesPendingStatus"); err == nil && waits != 0 {
		sick("memory pages wait to be retired: restart the machine")
	}
	for _, r := range d.slowdowns() {
		sick("%s", r)
	}
	return h
}

// slowdowns are the reasons of the hardware for running slower than asked.
// The kinds that work as intended, such as a power limit, are not among them.
func (d *Device) slowdowns() []string {
	var mask uint64
	if d.l.call("nvmlDeviceGetCurrentClocksThrottleReasons", d.handle, uintptr(unsafe.Pointer(&mask))) != nil {
		return nil
	}
	var all []string
	if mask&(slowdownThermal|slowdownThermalSoftware) != 0 {
		all = append(all, "slowed down by heat")
	}
	if mask&slowdownPowerBrake != 0 {
		all = append(all, "slowed down by the power supply's brake")
	}
	if len(all) == 0 && mask&slowdownHardware != 0 {
		all = append(all, "slowed down by the hardware: heat or power")
	}
	return all
}

// Load is how busy the GPU is now.
func (d *Device) Load() hardware.DeviceLoad {
	l := hardware.DeviceLoad{Busy: -1}
	var u utilization
	if d.l.call("nvmlDeviceGetUtilizationRates", d.handle, uintptr(unsafe.Pointer(&u))) == nil {
		l.Busy = float64(min(u.gpu, 100)) / 100
	}
	_, used := d.memory()
	l.Used = hardware.Bytes(used)
	const die = 0
	var celsius uint32
	if d.l.call("nvmlDeviceGetTemperature", d.handle, die, uintptr(unsafe.Pointer(&celsius))) == nil {
		l.Celsius = float64(celsius)
	}
	if milliwatts, err := d.number("nvmlDeviceGetPowerUsage"); err == nil {
		l.Watts = float64(milliwatts) / 1000
	}
	return l
}
