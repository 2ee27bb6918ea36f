package nvml

import (
	"context"
	"fmt"
	"strconv"
	"unsafe"

	"oscine.dev/oscine/internal/hardware"
)

// Kinds of events of nvml.h that report a failing or slowed GPU.
const (
	eventDoubleBit         = 0x2
	eventPState            = 0x4
	eventXid               = 0x8
	eventClock             = 0x10
	eventSingleBitStorm    = 0x200
	eventRetirement        = 0x400
	eventRetirementFailure = 0x800
	eventPoison            = 0x1000
	eventFatalPoison       = 0x2000
	eventUnavailable       = 0x4000
	eventRecovery          = 0x8000
)

// wanted are the events that are reported; a change of the performance state
// or clock only where the hardware slowed the GPU down by itself.
const wanted = eventDoubleBit | eventPState | eventXid | eventClock | eventSingleBitStorm | eventRetirement | eventRetirementFailure |
	eventPoison | eventFatalPoison | eventUnavailable | eventRecovery

// eventPause is how long one call waits for an event, in milliseconds; so
// long may it take to notice that the listener is gone.
const eventPause = 500

// Events calls f for each event of the GPUs until ctx ends.
func (l *Library) Events(ctx context.Context, devices []*Device, f func(hardware.DriverEvent) error) error {
	var set uintptr
	if err := l.call("nvmlEventSetCreate", uintptr(unsafe.Pointer(&set))); err != nil {
		return err
	}
	defer func() { _ = l.call("nvmlEventSetFree", set) }()
	byHandle := map[uintptr]*Device{}
	for _, d := range devices {
		var supported uint64
		if l.call("nvmlDeviceGetSupportedEventTypes", d.handle, uintptr(unsafe.Pointer(&supported))) != nil || supported&wanted == 0 {
			continue
		}
		if err := l.call("nvmlDeviceRegisterEvents", d.handle, uintptr(supported&wanted), set); err != nil {
			return d.wrap(err)
		}
		byHandle[d.handle] = d
	}
	if len(byHandle) == 0 {
		<-ctx.Done()
		return nil
	}
	slow := map[*Device]string{}
	for ctx.Err() == nil {
		var data eventData
		err := l.call("nvmlEventSetWait_v2", set, uintptr(unsafe.Pointer(&data)), eventPause)
		if is(err, Timeout) {
			continue
		}
		if err != nil {
			return err
		}
		d := byHandle[data.device]
		if d == nil {
			continue
		}
		e, ok := d.event(&data, slow)
		if !ok {
			continue
		}
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}

// event words what the library tells. slow remembers why a device was slowed
// down, so that each cause is reported once.
func (d *Device) event(data *eventData, slow map[*Device]string) (hardware.DriverEvent, bool) {
	e := hardware.DriverEvent{Device: d.Address, State: "degraded"}
	if data.gpuInstance != 1<<32-1 && data.computeInstance != 1<<32-1 {
		e.Partition = fmt.Sprintf("mig%d-%d", data.gpuInstance, data.computeInstance)
	}
	switch data.eventType {
	case eventXid:
		e.Kind, e.Code, e.Text = "xid", int(data.data), xid(data.data)
		if data.data == xidOffBus {
			e.State = "lost"
		}
	case eventDoubleBit:
		e.Kind, e.Text = "ecc", "uncorrectable memory error"
	case eventSingleBitStorm:
		e.Kind, e.Text = "ecc", "many corrected memory errors"
	case eventRetirement:
		e.Kind, e.Text = "ecc", "a part of the memory is taken out of use"
	case eventRetirementFailure:
		e.Kind, e.Text = "ecc", "a part of the memory cannot be taken out of use: replace the GPU"
	case eventPoison, eventFatalPoison:
		e.Kind, e.Text = "poison", "damaged data reached the processors: what ran there is lost"
	case eventUnavailable:
		e.Kind, e.State, e.Text = "unavailable", "lost", "the driver cannot reach the GPU any more"
	case eventRecovery:
		e.Kind, e.Text = "recovery", "the driver asks for a reset or restart of the GPU"
	case eventClock, eventPState:
		reasons := d.slowdowns()
		now := ""
		if len(reasons) > 0 {
			now = reasons[0]
		}
		was := slow[d]
		slow[d] = now
		e.Kind, e.Text = "clocks", now
		return e, now != "" && now != was
	default:
		return e, false
	}
	return e, true
}

const xidOffBus = 79

// xid names the errors that people meet most; NVIDIA, "Xid errors".
func xid(code uint64) string {
	known := map[uint64]string{
		13: "a program's fault in a kernel", 31: "a program used memory that is not its own", 43: "a program's channel was stopped", 45: "a program was ended",
		48: "uncorrectable memory error", 63: "a memory row or page was taken out of use", 64: "a memory row or page could not be taken out of use",
		74: "NVLink error", xidOffBus: "the GPU fell off the bus", 92: "many corrected memory errors", 94: "a memory error that one program had", 95: "a memory error beyond one program",
		119: "the GPU's system processor does not answer", 120: "the GPU's system processor failed", 140: "unrecovered memory error",
	}
	text := "Xid " + strconv.FormatUint(code, 10)
	if words := known[code]; words != "" {
		text += ": " + words
	}
	return text
}
