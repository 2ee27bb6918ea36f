package onnx

import (
	"errors"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/serve/engine/clib"
	"oscine.dev/oscine/internal/serve/worker"
)

// TestCUDADriverMissing is a worker on a machine without NVIDIA's driver: it names
// what is missing before the engine's library is loaded.
func TestCUDADriverMissing(t *testing.T) {
	if _, err := clib.Load("libcuda.so.1"); err == nil {
		t.Skip("this machine has NVIDIA's driver")
	}
	e := NewCUDA(13)
	e.library = "/nothing"
	_, err := e.Open(writeModel(t, doubler("batch", 4)), worker.Options{Threads: 1})
	if err == nil || !strings.Contains(err.Error(), "NVIDIA's driver is missing: libcuda.so.1") || !strings.Contains(err.Error(), "spec.resources.devices") {
		t.Errorf("got %v", err)
	}
}

// TestCUDALibraries loads all of the pack's libraries beside a driver's library that
// does nothing: the engine's own parts accept their settings, and CUDA then says that
// the driver is too old.
func TestCUDALibraries(t *testing.T) {
	dir, err := pack.Libraries(t.Context(), "onnxruntime-cuda", runtime.GOARCH, false, t.Output())
	if err != nil {
		t.Skip(err)
	}
	if _, err := clib.Load("libcuda.so.1"); err == nil {
		t.Skip("this machine has NVIDIA's driver")
	}
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("needs a C compiler for the stand-in of libcuda.so.1: install gcc")
	}
	driver := filepath.Join(t.TempDir(), "driver.so")
	compile := exec.Command(gcc, "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-x", "c", "-o", driver, "-")
	compile.Stdin = strings.NewReader("int cuTensorMapEncodeTiled(void) { return 999; }\n")
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	// Each after those that it needs, as the linker finds them in the pack.
	for _, name := range []string{
		driver, "libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcufft.so.12", "libnvrtc.so.13", "libcudnn.so.9", "libcudnn_graph.so.9",
		"libonnxruntime_providers_shared.so", Name,
	} {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		if _, err := clib.Load(name); err != nil {
			t.Fatal(err)
		}
	}
	l, err := Load(filepath.Join(dir, Name))
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.open(writeModel(t, doubler("batch", 4)), 1, true)
	if want := "load the model on the GPU: "; err == nil || !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(err.Error(), ": CUDA driver version is insufficient for CUDA runtime version") || !errors.Is(err, worker.ErrEngine) {
		t.Errorf("got %v, want %s and what CUDA said", err, want)
	}
}
