package main

import (
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/samples/synthetic"
	"oscine.dev/oscine/internal/serve/engine"
	"oscine.dev/oscine/internal/serve/worker"
)

// TestNoGPU says plainly on a machine without a GPU that nothing was tried.
func TestNoGPU(t *testing.T) {
	var out strings.Builder
	err := run(t.Context(), []string{"--bin", t.TempDir()}, &out, io.Discard)
	if err == nil {
		t.Skip("this machine has a GPU")
	}
	if !strings.Contains(err.Error(), "nothing of what needs one was tried") || strings.Contains(out.String(), "== node") {
		t.Errorf("got %v after\n%s", err, &out)
	}
}

// TestNetworks loads the networks with the real engine.
func TestNetworks(t *testing.T) {
	dir, err := pack.Libraries(t.Context(), "onnxruntime", runtime.GOARCH, false, t.Output())
	if err != nil {
		t.Skip(err)
	}
	e := engine.All()["onnxruntime"]
	small := network{"small", func() []byte {
		m := synthetic.New(3, 16, 16)
		m.Convolution(3, 4, 7, 2)
		m.Convolution(4, 4, 3, 1)
		m.Operator("GlobalAveragePool")
		m.Operator("Flatten")
		m.Dense(4, 10)
		m.Operator("Relu")
		return m.Bytes(10)
	}}
	for _, n := range append(nets()[:1], small) {
		file := filepath.Join(t.TempDir(), n.name+".onnx")
		if err := os.WriteFile(file, n.model(), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := e.Open(filepath.Join(dir, e.Library), file, worker.Options{Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		if meta := s.Metadata(); len(meta.Inputs) != 1 || len(meta.Outputs) != 1 || meta.Inputs[0].Shape[0] != -1 || !meta.Batch {
			t.Errorf("%s: %+v", n.name, meta)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestFigures reads what oscine chat prints.
func TestFigures(t *testing.T) {
	if m := counted.FindStringSubmatch("(46 tokens read, 512 written, the first after 0.12 s, all in 19.50 s)\n"); len(m) != 5 || m[2] != "512" || m[4] != "19.50" {
		t.Errorf("got %q", m)
	}
}
