package llama

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/gguf/gguftest"
	"oscine.dev/oscine/internal/serve/worker"
)

// server is a program that lists devices as llama-server does.
func server(t *testing.T, listed string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "llama-server")
	if err := os.WriteFile(file, []byte("#!/bin/sh\ncat <<'EOF'\n"+listed+"EOF\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestFindGPU(t *testing.T) {
	for listed, want := range map[string]string{
		"Available devices:\n  Vulkan0: NVIDIA H200 (143771 MiB, 142977 MiB free)\n": "NVIDIA H200",
		"Available devices:\n  Vulkan0: Odd (one)\n":                                 "Odd (one)",
		"Available devices:\n  (none)\n":                                             "",
	} {
		e := &Engine{program: server(t, listed), gpu: true}
		got, err := e.findGPU()
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v", listed, got, err)
		}
	}
	if _, err := (&Engine{program: "/nothing"}).findGPU(); err == nil {
		t.Error("a server that does not start has a GPU")
	}
}

// TestNoGPU refuses a model: llama-server would serve it on the CPU.
func TestNoGPU(t *testing.T) {
	file := filepath.Join(t.TempDir(), "model.gguf")
	if err := os.WriteFile(file, gguftest.Tiny(gguftest.Options{}), 0o600); err != nil {
		t.Fatal(err)
	}
	e := &Engine{program: server(t, "Available devices:\n  (none)\n"), gpu: true}
	_, err := e.Open(file, worker.Options{Threads: 1})
	if err == nil || !strings.Contains(err.Error(), "there is no GPU that Vulkan shows: ask for one of NVIDIA's in spec.resources.devices") {
		t.Errorf("got %v", err)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("LLAMA_ARG_MODEL", "/another")
	t.Setenv("LD_LIBRARY_PATH", "/usr/local/nvidia/lib64")
	env := environment("/tmp")
	if !slices.Contains(env, "LD_LIBRARY_PATH=/usr/local/nvidia/lib64") || strings.Contains(strings.Join(env, " "), "another") {
		t.Errorf("got %q", env)
	}
}
