package onnx

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"

	"oscine.dev/oscine/internal/serve/engine/clib"
	"oscine.dev/oscine/internal/serve/worker"
)

// apiVersion is the version of the C API that this package speaks; the table
// only ever grows, so every later library has it.
const apiVersion = 18

// Positions of functions in struct OrtApi of onnxruntime_c_api.h, which are
// fixed for all versions.
const (
	fnGetErrorCode                   = 1
	fnGetErrorMessage                = 2
	fnCreateEnv                      = 3
	fnDisableTelemetryEvents         = 6
	fnCreateSession                  = 7
	fnRun                            = 9
	fnCreateSessionOptions           = 10
	fnSetIntraOpNumThreads           = 24
	fnSetInterOpNumThreads           = 25
	fnSessionGetInputCount           = 30
	fnSessionGetOutputCount          = 31
	fnSessionGetInputTypeInfo        = 33
	fnSessionGetOutputTypeInfo       = 34
	fnSessionGetInputName            = 36
	fnSessionGetOutputName           = 37
	fnCreateRunOptions               = 39
	fnRunOptionsSetTerminate         = 46
	fnCreateTensorAsOrtValue         = 48
	fnCreateTensorWithDataAsOrtValue = 49
	fnGetTensorMutableData           = 51
	fnFillStringTensor               = 52
	fnGetStringTensorDataLength      = 53
	fnGetStringTensorContent         = 54
	fnCastTypeInfoToTensorInfo       = 55
	fnGetOnnxTypeFromTypeInfo        = 56
	fnGetTensorElementType           = 60
	fnGetDimensionsCount             = 61
	fnGetDimensions                  = 62
	fnGetTensorTypeAndShape          = 65
	fnCreateCpuMemoryInfo            = 69
	fnGetAllocatorWithDefaultOptions = 78
	fnGetValue                       = 80
	fnGetValueCount                  = 81
	fnReleaseStatus                  = 93
	fnReleaseSession                 = 95
	fnReleaseValue                   = 96
	fnReleaseRunOptions              = 97
	fnReleaseTypeInfo                = 98
	fnReleaseTensorTypeAndShapeInfo  = 99
	fnReleaseSessionOptions          = 100
	fnCastTypeInfoToMapTypeInfo      = 103
	fnCastTypeInfoToSequenceTypeInfo = 104
	fnGetMapValueType                = 106
	fnGetSequenceElementType         = 107
	fnAddSessionConfigEntry          = 130
	fnAppendExecutionProviderCUDA    = 204 // …_CUDA_V2
	fnCreateCUDAProviderOptions      = 205
	fnUpdateCUDAProviderOptions      = 206
	fnReleaseCUDAProviderOptions     = 208
	tableSize                        = 210
)

// Library is a loaded ONNX Runtime. It stays loaded for the life of the
// process.
type Library struct {
	table   *[tableSize]uintptr
	version string
	env     uintptr
	memory  uintptr // OrtMemoryInfo of ordinary memory
	alloc   uintptr // default OrtAllocator
}

// noTelemetry is the one switch that the library obeys before it starts its
// telemetry: from version 1.29 on, its official Linux builds report models and
// machine to their maker unless it is set. DisableTelemetryEvents comes too
// late, when the environment has been made.
const noTelemetry = "ORT_DISABLE_TELEMETRY"

// Load loads the library from a path, or by name from the system's paths, with
// its telemetry switched off.
func Load(path string) (*Library, error) {
	if err := clib.Setenv(map[string]string{noTelemetry: "1"}); err != nil {
		return nil, err
	}
	library, err := clib.Load(path)
	if err != nil {
		return nil, err
	}
	getBase, err := library.Func("OrtGetApiBase")
	if err != nil {
		return nil, err
	}
	base := (*[2]uintptr)(clib.Pointer(getBase.Call()))
	version, _, _ := purego.SyscallN(base[1])
	table, _, _ := purego.SyscallN(base[0], apiVersion)
	if table == 0 {
		return nil, fmt.Errorf("ONNX Runtime %s is too old: its C API has no version %d", clib.Text(version), apiVersion)
	}
	l := &Library{table: (*[tableSize]uintptr)(clib.Pointer(table)), version: clib.Text(version)}
	return l, l.initialise()
}

func (l *Library) initialise() error {
	name := clib.String("oscine")
	const warning = 2
	if err := l.call(fnCreateEnv, warning, name, l.out(&l.env)); err != nil {
		return err
	}
	if err := l.call(fnDisableTelemetryEvents, l.env); err != nil {
		return err
	}
	const arena, ordinary = 1, 0
	if err := l.call(fnCreateCpuMemoryInfo, arena, ordinary, l.out(&l.memory)); err != nil {
		return err
	}
	return l.call(fnGetAllocatorWithDefaultOptions, l.out(&l.alloc))
}

// out passes the address of a variable of a heap object to the library, which
// writes it during the call only. The Go heap does not move its objects.
func (l *Library) out(v *uintptr) uintptr { return uintptr(unsafe.Pointer(v)) }

// call calls a function that returns an OrtStatus.
func (l *Library) call(fn int, args ...uintptr) error {
	status, _, _ := purego.SyscallN(l.table[fn], args...)
	if status == 0 {
		return nil
	}
	code, _, _ := purego.SyscallN(l.table[fnGetErrorCode], status)
	message, _, _ := purego.SyscallN(l.table[fnGetErrorMessage], status)
	text := clib.Text(message)
	err := errors.New(plain(text))
	purego.SyscallN(l.table[fnReleaseStatus], status)
	if said := cudaFailure(text); said != "" {
		return fmt.Errorf("%w: %s", worker.ErrEngine, said) // nor is a GPU that fails
	}
	if uint32(code) == runtimeException && strings.Contains(err.Error(), "alloc") {
		return fmt.Errorf("%w: %w", worker.ErrEngine, err) // no memory is no fault of the request
	}
	return err
}

// runtimeException is ORT_RUNTIME_EXCEPTION of OrtErrorCode.
const runtimeException = 6

// plain leaves out of ONNX Runtime's message the place in its own source,
// which names a file, a line and the signature of a function.
func plain(message string) string {
	at := strings.Index(message, "/onnxruntime_src/")
	if at < 0 {
		return strings.TrimSpace(message)
	}
	depth := 0
	for i := at; i < len(message); i++ {
		switch message[i] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				rest := strings.TrimPrefix(strings.TrimSpace(message[i+1:]), "const ")
				return strings.TrimSpace(strings.TrimSpace(message[:at]) + " " + rest)
			}
		}
	}
	return strings.TrimSpace(message)
}

// release calls a function that returns nothing.
func (l *Library) release(fn int, object uintptr) {
	if object != 0 {
		purego.SyscallN(l.table[fn], object)
	}
}
