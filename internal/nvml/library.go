package nvml

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
)

// Library is a loaded and initialised NVML. It is safe for use by several
// goroutines, as NVML itself is.
type Library struct {
	path    string
	handle  uintptr
	symbols map[string]uintptr
	driver  string
}

// places are where a library of that name is looked for: in the pack that this program
// comes in, where the linker looks, then where distributions and containers put the driver's libraries.
func places() []string {
	triplet := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]
	const name = "libnvidia-ml.so.1"
	all := []string{name, "/usr/lib/" + triplet + "/" + name, "/usr/lib/" + triplet + "/nvidia/current/" + name, "/usr/lib64/" + name,
		"/run/nvidia/driver/usr/lib/" + triplet + "/" + name, "/run/opengl-driver/lib/" + name, "/usr/lib/wsl/lib/" + name}
	// The pack with the kernel's driver brings the libraries of its version.
	if self, err := os.Executable(); err == nil {
		if root, ok := strings.CutSuffix(filepath.Dir(self), "/usr/lib/oscine/drivers"); ok {
			if file := root + "/usr/lib/" + triplet + "/" + name; exists(file) {
				return append([]string{file}, all...)
			}
		}
	}
	return all
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// functions are those of nvml.h that this package calls. Every library must
// have the first of them; a later one that is missing, in the library of an old
// driver, counts as not supported by the device.
func functions() []string {
	return []string{
		"nvmlInit_v2", "nvmlShutdown", "nvmlSystemGetDriverVersion", "nvmlDeviceGetHandleByPciBusId_v2", "nvmlDeviceGetName",
		"nvmlDeviceGetUUID", "nvmlDeviceGetMinorNumber",
		"nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetVbiosVersion", "nvmlDeviceGetArchitecture", "nvmlDeviceGetCudaComputeCapability",
		"nvmlDeviceGetEccMode", "nvmlDeviceGetTotalEccErrors", "nvmlDeviceGetRemappedRows", "nvmlDeviceGetRetiredPagesPendingStatus",
		"nvmlDeviceGetCurrentClocksThrottleReasons", "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetTemperature", "nvmlDeviceGetPowerUsage",
		"nvmlDeviceGetNvLinkState", "nvmlDeviceGetNvLinkVersion", "nvmlDeviceGetNvLinkRemotePciInfo_v2", "nvmlDeviceGetNvLinkRemoteDeviceType",
		"nvmlDeviceGetFieldValues", "nvmlDeviceGetTopologyCommonAncestor", "nvmlDeviceGetP2PStatus",
		"nvmlDeviceGetMigMode", "nvmlDeviceSetMigMode", "nvmlDeviceGetGpuInstanceProfileInfo", "nvmlDeviceGetGpuInstancePossiblePlacements_v2",
		"nvmlDeviceGetGpuInstances", "nvmlDeviceCreateGpuInstanceWithPlacement", "nvmlGpuInstanceGetInfo", "nvmlGpuInstanceDestroy",
		"nvmlGpuInstanceGetComputeInstanceProfileInfo", "nvmlGpuInstanceGetComputeInstances", "nvmlGpuInstanceCreateComputeInstance",
		"nvmlComputeInstanceGetInfo_v2", "nvmlComputeInstanceDestroy", "nvmlDeviceGetComputeMode", "nvmlDeviceSetComputeMode",
		"nvmlEventSetCreate", "nvmlDeviceGetSupportedEventTypes", "nvmlDeviceRegisterEvents", "nvmlEventSetWait_v2", "nvmlEventSetFree",
	}
}

// required is how many of the first functions every library must have.
const required = 5

// Open loads the library at path, or from where drivers put it if path is "",
// and initialises it. Every error is an *Error and says what to do next. Close
// it after use.
func Open(path string) (*Library, error) {
	l := &Library{symbols: map[string]uintptr{}}
	candidates := places()
	if path != "" {
		candidates = []string{path}
	}
	var failures []error
	for _, p := range candidates {
		handle, err := purego.Dlopen(p, purego.RTLD_NOW|purego.RTLD_LOCAL)
		if err == nil {
			l.path, l.handle = p, handle
			break
		}
		failures = append(failures, err)
	}
	if l.handle == 0 {
		return nil, &Error{Code: LibraryNotFound, Detail: failures[0].Error()}
	}
	missing := l.resolve()
	for _, name := range functions()[:required] {
		if slices.Contains(missing, name) {
			return nil, &Error{Function: name, Code: FunctionNotFound, Detail: l.path + " is not NVML, or is older than any that is understood"}
		}
	}
	if err := l.call("nvmlInit_v2"); err != nil {
		return nil, err
	}
	version, err := l.text("nvmlSystemGetDriverVersion", 0, 80)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	l.driver = version
	return l, nil
}

// resolve looks all functions up and returns those that the library lacks.
func (l *Library) resolve() (missing []string) {
	for _, name := range functions() {
		symbol, err := purego.Dlsym(l.handle, name)
		if err != nil || symbol == 0 {
			missing = append(missing, name)
			continue
		}
		l.symbols[name] = symbol
	}
	return missing
}

// Close shuts NVML down.
func (l *Library) Close() error { return l.call("nvmlShutdown") }

// call calls a function that returns an nvmlReturn_t. Pointers among the
// arguments are converted in the call itself, which keeps what they point to
// where it is.
//
//go:uintptrescapes
func (l *Library) call(name string, args ...uintptr) error {
	symbol, ok := l.symbols[name]
	if !ok {
		return &Error{Function: name, Code: FunctionNotFound}
	}
	code, _, _ := purego.SyscallN(symbol, args...)
	if Return(uint32(code)) == Success {
		return nil
	}
	return &Error{Function: name, Code: Return(uint32(code))}
}

// text calls a function that fills a buffer with a C string, of a device or, for
// handle 0, of the system.
func (l *Library) text(name string, handle uintptr, size int) (string, error) {
	buffer := make([]byte, size)
	var err error
	if handle == 0 {
		err = l.call(name, uintptr(unsafe.Pointer(&buffer[0])), uintptr(size))
	} else {
		err = l.call(name, handle, uintptr(unsafe.Pointer(&buffer[0])), uintptr(size))
	}
	return cstring(buffer), err
}

func cstring(b []byte) string {
	if i := slices.Index(b, 0); i >= 0 {
		b = b[:i]
	}
	// The library is the vendor's, but its words go to people and selectors.
	return string(slices.DeleteFunc(slices.Clone(b), func(c byte) bool { return c < ' ' || c > '~' }))
}

// unsupported reports whether a device or a library lacks a feature, which is
// no failure.
func unsupported(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Code == NotSupported || e.Code == FunctionNotFound || e.Code == NotFound || e.Code == InvalidArgument)
}

// is reports whether an error is NVML's of that code.
func is(err error, code Return) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// wrap names the device in an error.
func (d *Device) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("GPU %s: %w", d.Address, err)
}
