package onnx

import (
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
	e := NewCUDA()
	e.library = "/nothing"
	_, err := e.Open(writeModel(t, doubler("batch", 4)), worker.Options{Threads: 1})
	if err == nil || !strings.Contains(err.Error(), "NVIDIA's driver is missing: libcuda.so.1") || !strings.Contains(err.Error(), "spec.resources.devices") {
		t.Errorf("got %v", err)
	}
}

// TestCUDALibraries loads all of the pack's libraries that need no driver.
func TestCUDALibraries(t *testing.T) {
	dir, err := pack.Libraries(t.Context(), "onnxruntime-cuda", runtime.GOARCH, false, t.Output())
	if err != nil {
		t.Skip(err)
	}
	// Each after those that it needs.
	for _, name := range []string{
		"libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcufft.so.12", "libnvrtc.so.13", "libcudnn.so.9", "libcudnn_graph.so.9",
		"libonnxruntime_providers_shared.so", Name,
	} {
		if _, err := clib.Load(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	l, err := Load(filepath.Join(dir, Name))
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.open(writeModel(t, doubler("batch", 4)), 1, true)
	if err == nil {
		_ = s.Close()
		return
	}
	if !strings.Contains(err.Error(), "libcuda.so.1") && !strings.Contains(err.Error(), "CUDA") {
		t.Errorf("without a driver: got %v", err)
	}
}
