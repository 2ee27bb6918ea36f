package nvml

// The structs of nvml.h that are passed by reference, with the same fields in
// the same places on amd64 and arm64; a test compares them with the C compiler.

// pciInfo is nvmlPciInfo_t.
type pciInfo struct {
	busIDLegacy               [16]byte
	domain, bus, device       uint32
	pciDeviceID, pciSubSystem uint32
	busID                     [32]byte
}

// memory is nvmlMemory_t.
type memory struct{ total, free, used uint64 }

// memoryV2 is nvmlMemory_v2_t.
type memoryV2 struct {
	version                     uint32
	total, reserved, free, used uint64
}

// utilization is nvmlUtilization_t, in percent.
type utilization struct{ gpu, memory uint32 }

// fieldValue is nvmlFieldValue_t; the value is a union of 8 bytes.
type fieldValue struct {
	fieldID, scopeID   uint32
	timestamp, latency int64
	valueType          uint32
	returned           uint32
	value              uint64
}

// placement is nvmlGpuInstancePlacement_t, in memory slices, and
// nvmlComputeInstancePlacement_t, in compute slices.
type placement struct{ start, size uint32 }

// profileInfo is nvmlGpuInstanceProfileInfo_t.
type profileInfo struct {
	id, p2p, slices, instances, multiprocessors  uint32
	copyEngines, decoders, encoders, jpegs, ofas uint32
	memoryMB                                     uint64
}

// instanceInfo is nvmlGpuInstanceInfo_t.
type instanceInfo struct {
	device    uintptr
	id        uint32
	profileID uint32
	placement placement
}

// computeProfileInfo is nvmlComputeInstanceProfileInfo_t.
type computeProfileInfo struct {
	id, slices, instances, multiprocessors       uint32
	copyEngines, decoders, encoders, jpegs, ofas uint32
}

// computeInfo is nvmlComputeInstanceInfo_t.
type computeInfo struct {
	device, gpuInstance uintptr
	id, profileID       uint32
	placement           placement
}

// eventData is nvmlEventData_t.
type eventData struct {
	device          uintptr
	eventType, data uint64
	gpuInstance     uint32
	computeInstance uint32
}
