package nvml

import "fmt"

// Return is an nvmlReturn_t.
type Return uint32

// The returns that this package tells apart; the numbers are nvml.h's.
const (
	Success               Return = 0
	Uninitialized         Return = 1
	InvalidArgument       Return = 2
	NotSupported          Return = 3
	NoPermission          Return = 4
	NotFound              Return = 6
	InsufficientSize      Return = 7
	InsufficientPower     Return = 8
	DriverNotLoaded       Return = 9
	Timeout               Return = 10
	IRQIssue              Return = 11
	LibraryNotFound       Return = 12
	FunctionNotFound      Return = 13
	CorruptedInfoROM      Return = 14
	GPUIsLost             Return = 15
	ResetRequired         Return = 16
	OperatingSystem       Return = 17
	VersionMismatch       Return = 18
	InUse                 Return = 19
	InsufficientResources Return = 23
	NotReady              Return = 27
	GPUNotFound           Return = 28
)

// String says a return in words that end with the next step.
func (r Return) String() string {
	switch r {
	case Success:
		return "success"
	case NoPermission:
		return "this user may not do that: run as root"
	case NotSupported:
		return "this GPU or its driver cannot do that"
	case NotFound:
		return "there is no such thing on this GPU"
	case InvalidArgument:
		return "the library does not accept an argument"
	case InsufficientPower:
		return "the GPU lacks power: connect its external power cables"
	case DriverNotLoaded:
		return "NVIDIA's kernel driver is not loaded: load the module nvidia (modprobe nvidia), or install the driver of this GPU first"
	case Timeout:
		return "the driver did not answer in time"
	case IRQIssue:
		return "the kernel has trouble with the GPU's interrupts: see the driver's messages in the kernel log"
	case LibraryNotFound:
		return "libnvidia-ml.so.1 is not on this machine: install the libraries of NVIDIA's driver, in the version of its kernel module (Debian: libnvidia-ml1 and libcuda1)"
	case FunctionNotFound:
		return "the library of this driver has no such function: update the driver"
	case CorruptedInfoROM:
		return "the GPU's infoROM is corrupted: have the board replaced"
	case GPUIsLost:
		return "the GPU fell off the bus: see the kernel log, and restart the machine"
	case ResetRequired:
		return "the GPU must be reset first: stop what uses it and reset it (nvidia-smi --gpu-reset), or restart the machine"
	case OperatingSystem:
		return "the system keeps this process from the GPU's control device: allow /dev/nvidiactl in its cgroup"
	case VersionMismatch:
		return "kernel driver and library are of different versions: restart the machine, or load the new kernel module (modprobe -r nvidia_uvm nvidia && modprobe nvidia)"
	case InUse:
		return "the GPU, or that part of it, is in use: stop what runs on it first"
	case InsufficientResources:
		return "the GPU has no room for it: remove partitions first"
	case NotReady:
		return "the GPU is not ready yet: try again"
	case GPUNotFound:
		return "the driver knows of no such GPU: see its messages in the kernel log"
	}
	return fmt.Sprintf("NVML error %d", uint32(r))
}

// Error is a call that NVML refused.
type Error struct {
	Function string // of nvml.h; "" where there was no call
	Code     Return
	Detail   string // more, where more is known
}

func (e *Error) Error() string {
	text := e.Code.String()
	if e.Function != "" {
		text = e.Function + ": " + text
	}
	if e.Detail != "" {
		text += " (" + e.Detail + ")"
	}
	return text
}
