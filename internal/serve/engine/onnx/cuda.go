package onnx

import (
	"errors"
	"fmt"
	"strings"

	"oscine.dev/oscine/internal/serve/engine/clib"
)

// cudaDriver is NVIDIA's driver API (cuda.h).
type cudaDriver struct {
	init, version, count, get, name, errorName clib.Func
}

// loadCUDADriver loads the library that comes with the kernel driver, which the
// engine's own libraries need, and says what is missing in words that they lack.
func loadCUDADriver() (*cudaDriver, error) {
	const library = "libcuda.so.1"
	lib, err := clib.Load(library)
	if err != nil {
		return nil, fmt.Errorf("NVIDIA's driver is missing: %s is not here: ask for a GPU in spec.resources.devices; on a node whose GPU is usable it comes with the device (see oscine hardware --explain gpu0): %w", library, err)
	}
	d := new(cudaDriver)
	return d, lib.Bind(map[string]*clib.Func{
		"cuInit": &d.init, "cuDriverGetVersion": &d.version, "cuDeviceGetCount": &d.count, "cuDeviceGet": &d.get, "cuDeviceGetName": &d.name, "cuGetErrorName": &d.errorName,
	})
}

// call calls a function that returns a CUresult.
func (d *cudaDriver) call(what string, f clib.Func, args ...uintptr) error {
	code := uint32(f.Call(args...))
	if code == 0 {
		return nil
	}
	name := clib.NewWords(1)
	defer name.Free()
	text := fmt.Sprintf("error %d", code)
	if uint32(d.errorName.Call(uintptr(code), name.Address())) == 0 {
		text = clib.Text(name[0])
	}
	return fmt.Errorf("%s: %s", what, text)
}

// gpu returns the name of the first GPU, which is the one that models run on. The
// driver has to support a CUDA.
func (d *cudaDriver) gpu(cuda int) (string, error) {
	v := clib.NewWords(1)
	defer v.Free()
	if err := d.call("ask NVIDIA's driver for its version", d.version, v.Address()); err != nil {
		return "", err
	}
	if version := int(uint32(v[0])); version < 1000*cuda {
		return "", fmt.Errorf("NVIDIA's driver on the node supports CUDA %d.%d; this engine needs CUDA %d: install a newer driver", version/1000, version%1000/10, cuda)
	}
	if err := d.call("initialise CUDA", d.init, 0); err != nil {
		return "", fmt.Errorf("%w: the driver's libraries and its kernel module must be of one version, and the GPU usable (see oscine hardware --explain gpu0)", err)
	}
	v[0] = 0
	err := d.call("count the GPUs", d.count, v.Address())
	if err == nil && uint32(v[0]) == 0 {
		err = errors.New("CUDA sees no GPU: ask for one in spec.resources.devices")
	}
	if err == nil {
		v[0] = 0
		err = d.call("open the GPU", d.get, v.Address(), 0)
	}
	if err != nil {
		return "", err
	}
	text := clib.NewWords(16)
	defer text.Free()
	err = d.call("ask for the GPU's name", d.name, text.Address(), uintptr(8*len(text)), v[0]&(1<<32-1))
	return clib.Text(text.Address()), err
}

// onGPU has the nodes of a graph computed by CUDA where it knows them, and by the
// CPU where it does not.
func (l *Library) onGPU(options uintptr) error {
	v := new(scratch)
	if err := l.call(fnCreateCUDAProviderOptions, l.out(&v.a)); err != nil {
		return err
	}
	provider := v.a
	defer l.release(fnReleaseCUDAProviderOptions, provider)
	settings := [][2]string{
		// As the CPU computes, so that answers do not depend on where a model runs.
		{"use_tf32", "0"},
		// Measured for each new shape otherwise, while a request waits.
		{"cudnn_conv_algo_search", "HEURISTIC"},
		// The arena would take up to twice what the model needs.
		{"arena_extend_strategy", "kSameAsRequested"},
	}
	keys, values := clib.NewWords(len(settings)), clib.NewWords(len(settings))
	defer keys.Free()
	defer values.Free()
	for i, s := range settings {
		keys[i], values[i] = clib.String(s[0]), clib.String(s[1])
	}
	if err := l.call(fnUpdateCUDAProviderOptions, provider, keys.Address(), values.Address(), uintptr(len(settings))); err != nil {
		return err
	}
	if err := l.call(fnAppendExecutionProviderCUDA, options, provider); err != nil {
		return fmt.Errorf("compute with CUDA: %w", err)
	}
	return nil
}

// cudaFailure finds in ONNX Runtime's message what CUDA said, without the place in
// ONNX Runtime's source; "" where it was not CUDA.
func cudaFailure(message string) string {
	_, said, ok := strings.Cut(message, "CUDA failure ")
	if !ok {
		return ""
	}
	said, _, _ = strings.Cut(said, ";")
	return "CUDA failure " + strings.TrimSpace(said)
}

// NewCUDA returns the engine that computes on the first of NVIDIA's GPUs, with
// libraries of a CUDA, such as 13.
func NewCUDA(version int) *Engine { return &Engine{cuda: version} }

// openGPU finds the GPU before the library looks for it.
func (e *Engine) openGPU() (string, error) {
	driver, err := loadCUDADriver()
	if err != nil {
		return "", err
	}
	return driver.gpu(e.cuda)
}
