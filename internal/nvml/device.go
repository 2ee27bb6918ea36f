package nvml

import (
	"fmt"
	"strings"
	"unsafe"
)

// Device is a GPU that NVML knows.
type Device struct {
	// Address is the PCI address as the kernel writes it, 0000:3b:00.0.
	Address string

	l      *Library
	handle uintptr
}

// Device finds a GPU by its PCI address.
func (l *Library) Device(address string) (*Device, error) {
	d := &Device{Address: address, l: l}
	id := append([]byte(address), 0)
	if err := l.call("nvmlDeviceGetHandleByPciBusId_v2", uintptr(unsafe.Pointer(&id[0])), uintptr(unsafe.Pointer(&d.handle))); err != nil {
		return nil, d.wrap(err)
	}
	return d, nil
}

// address is the kernel's spelling of a PCI address.
func (p *pciInfo) address() string {
	return fmt.Sprintf("%04x:%02x:%02x.%s", p.domain, p.bus, p.device, function(cstring(p.busID[:])))
}

// function is the last part of a bus ID, which the numbers do not have.
func function(busID string) string {
	if _, f, ok := strings.Cut(busID, "."); ok && len(f) == 1 && f[0] >= '0' && f[0] <= '7' {
		return f
	}
	return "0"
}

// words calls a function that fills a buffer with a C string; "" where the
// device does not tell.
func (d *Device) words(name string, size int) string {
	text, err := d.l.text(name, d.handle, size)
	if err != nil {
		return ""
	}
	return text
}

// number calls a function that sets one unsigned int.
func (d *Device) number(name string) (uint32, error) {
	var n uint32
	err := d.l.call(name, d.handle, uintptr(unsafe.Pointer(&n)))
	return n, err
}

// Minor is the number of the device node, /dev/nvidia3.
func (d *Device) Minor() (int, error) {
	n, err := d.number("nvmlDeviceGetMinorNumber")
	return int(n), d.wrap(err)
}

// UUID is the name by which CUDA_VISIBLE_DEVICES chooses the GPU. It
// identifies the board forever: it never leaves this machine.
func (d *Device) UUID() (string, error) {
	text, err := d.l.text("nvmlDeviceGetUUID", d.handle, 96)
	return text, d.wrap(err)
}

// memory is the total and the used memory in bytes. Where the library can, what
// the driver keeps for itself is not counted as used.
func (d *Device) memory() (total, used uint64) {
	v2 := memoryV2{version: uint32(unsafe.Sizeof(memoryV2{})) | 2<<24}
	if d.l.call("nvmlDeviceGetMemoryInfo_v2", d.handle, uintptr(unsafe.Pointer(&v2))) == nil {
		return v2.total, v2.used
	}
	var v1 memory
	if d.l.call("nvmlDeviceGetMemoryInfo", d.handle, uintptr(unsafe.Pointer(&v1))) == nil {
		return v1.total, v1.used
	}
	return 0, 0
}

// architecture is the generation's name, "" for one that is newer than this
// list.
func (d *Device) architecture() string {
	n, err := d.number("nvmlDeviceGetArchitecture")
	if err != nil {
		return ""
	}
	return map[uint32]string{2: "Kepler", 3: "Maxwell", 4: "Pascal", 5: "Volta", 6: "Turing", 7: "Ampere", 8: "Ada", 9: "Hopper", 10: "Blackwell", 13: "Rubin"}[n]
}

// capability is CUDA's compute capability, 9 and 0; zeros where unknown.
func (d *Device) capability() (major, minor int) {
	var a, b int32
	if d.l.call("nvmlDeviceGetCudaComputeCapability", d.handle, uintptr(unsafe.Pointer(&a)), uintptr(unsafe.Pointer(&b))) != nil {
		return 0, 0
	}
	return int(a), int(b)
}

// field reads one field of nvmlDeviceGetFieldValues as a whole number.
func (d *Device) field(id, scope uint32) (uint64, bool) {
	v := fieldValue{fieldID: id, scopeID: scope}
	err := d.l.call("nvmlDeviceGetFieldValues", d.handle, 1, uintptr(unsafe.Pointer(&v)))
	if err != nil || Return(v.returned) != Success {
		return 0, false
	}
	const unsignedInt, unsignedLong, unsignedLongLong = 1, 2, 3
	switch v.valueType {
	case unsignedInt:
		return v.value & (1<<32 - 1), true
	case unsignedLong, unsignedLongLong:
		return v.value, true
	}
	return 0, false
}

// ComputeMode is which processes may use a GPU.
type ComputeMode uint32

// The compute modes of nvml.h that this package sets.
const (
	DefaultMode      ComputeMode = 0 // any number of processes
	ExclusiveProcess ComputeMode = 3 // one process
)

// ComputeMode reads which processes may use the GPU.
func (d *Device) ComputeMode() (ComputeMode, error) {
	n, err := d.number("nvmlDeviceGetComputeMode")
	return ComputeMode(n), d.wrap(err)
}

// SetComputeMode says which processes may use the GPU.
func (d *Device) SetComputeMode(m ComputeMode) error {
	return d.wrap(d.l.call("nvmlDeviceSetComputeMode", d.handle, uintptr(m)))
}
