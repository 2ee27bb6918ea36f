package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/engine"
	"oscine.dev/oscine/internal/serve/engine/modeltest"
)

// buildWorker builds the program that runs engines.
func buildWorker(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "oscine-engine")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the worker: %v\n%s", err, out)
	}
	return program
}

// TestMemory prints what a worker of each engine has in memory with a small model,
// and how long that takes to load; docs/packs.md has the figures.
func TestMemory(t *testing.T) {
	program := buildWorker(t)
	for _, test := range []struct {
		engine, model string
		options       map[string]string
		most          int64 // MiB
	}{
		{"onnxruntime", modeltest.Direction, nil, 60},
		{"openvino", modeltest.Direction, nil, 120},
		{"litert", modeltest.Face, nil, 30},
		{"tensorflow", modeltest.BasicPitchSavedModel, nil, 400},
		{"executorch", "../../internal/serve/engine/executorch/testdata/net.pte", nil, 18},
		{"pytorch", "../../internal/serve/engine/pytorch/testdata/net.ts", map[string]string{"inputs": "picture:FP32[-1,3,16,16]", "outputs": "answer:FP32[-1,4] seen:FP32[-1,8]"}, 230},
	} {
		t.Run(test.engine, func(t *testing.T) {
			libs, err := pack.Libraries(t.Context(), test.engine, runtime.GOARCH, false, os.Stderr)
			if err != nil {
				t.Skip(err)
			}
			model := test.model
			if !slices.Contains([]string{".pte", ".ts"}, filepath.Ext(model)) {
				model = modeltest.Path(t, model)
			}
			if model, err = filepath.Abs(model); err != nil {
				t.Fatal(err)
			}
			socket := filepath.Join(t.TempDir(), "s")
			l, err := channel.Listen(socket)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			cmd := exec.Command(program, test.engine, "--library", filepath.Join(libs, engine.All()[test.engine].Library), "--socket", socket)
			cmd.Stderr = os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
			c, err := l.Accept(t.Context(), func(pid int) bool { return pid == cmd.Process.Pid })
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.Load(t.Context(), channel.Load{Path: model, Threads: 1, Options: test.options}); err != nil {
				t.Fatal(err)
			}
			s, err := c.Statistics(time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: %.1f MB resident, loaded in %v", test.engine, float64(s.MemoryBytes)/1e6, time.Duration(s.LoadNS).Round(time.Millisecond))
			if s.MemoryBytes > test.most<<20 {
				t.Errorf("more than %d MiB", test.most)
			}
		})
	}
}
