package openvino

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

// library loads the pinned OpenVINO, or skips the test.
func library(t testing.TB) *Library {
	t.Helper()
	dir, err := pack.Libraries(t.Context(), "openvino", runtime.GOARCH, false, os.Stderr)
	if err != nil {
		t.Skip(err)
	}
	l, err := Load(filepath.Join(dir, Name))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// chain is IR (OpenVINO's own format) of y = x·x·…·x for squares of n rows: as
// many products as steps.
func chain(n, steps int) string {
	dims := fmt.Sprintf("<dim>%d</dim><dim>%d</dim>", n, n)
	var layers, edges strings.Builder
	fmt.Fprintf(&layers, `<layer id="0" name="x" type="Parameter" version="opset1"><data shape="%d,%d" element_type="f32"/>
<output><port id="0" precision="FP32" names="x">%s</port></output></layer>`, n, n, dims)
	for i := 1; i <= steps; i++ {
		name := ""
		if i == steps {
			name = ` names="y"`
		}
		fmt.Fprintf(&layers, `<layer id="%d" name="m%d" type="MatMul" version="opset1"><data transpose_a="false" transpose_b="false"/>
<input><port id="0">%[3]s</port><port id="1">%[3]s</port></input><output><port id="2" precision="FP32"%s>%[3]s</port></output></layer>`, i, i, dims, name)
		from, port := i-1, 2
		if i == 1 {
			port = 0
		}
		fmt.Fprintf(&edges, `<edge from-layer="%d" from-port="%d" to-layer="%d" to-port="0"/><edge from-layer="0" from-port="0" to-layer="%d" to-port="1"/>`, from, port, i, i)
	}
	fmt.Fprintf(&layers, `<layer id="%d" name="r" type="Result" version="opset1"><input><port id="0">%s</port></input></layer>`, steps+1, dims)
	fmt.Fprintf(&edges, `<edge from-layer="%d" from-port="2" to-layer="%d" to-port="0"/>`, steps, steps+1)
	return `<?xml version="1.0"?><net name="t" version="11"><layers>` + layers.String() + `</layers><edges>` + edges.String() + `</edges></net>`
}

// folder writes files into a folder.
func folder(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestIR(t *testing.T) {
	s, err := library(t).Open(folder(t, map[string]string{"m.xml": chain(2, 2), "m.bin": ""}), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	meta := s.Metadata()
	spec := func(name string) []tensor.Spec {
		return []tensor.Spec{{Name: name, Type: tensor.FP32, Shape: tensor.Shape{2, 2}}}
	}
	if diff := cmp.Diff(spec("x"), meta.Inputs) + cmp.Diff(spec("y"), meta.Outputs); diff != "" || meta.Batch || !strings.HasPrefix(meta.Engine, "openvino 2026.") {
		t.Errorf("engine %q, batch %v %s", meta.Engine, meta.Batch, diff)
	}
	data := worker.NewBlock(16)[:16]
	for i, v := range []float32{1, 2, 3, 4} {
		binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(v))
	}
	out := worker.NewOutput(&meta, make([]byte, 4096))
	if err := s.Run(t.Context(), []worker.Tensor{{Shape: tensor.Shape{2, 2}, Data: data}}, out); err != nil {
		t.Fatal(err)
	}
	for i, want := range []float32{37, 54, 81, 118} { // x·x·x
		if got := math.Float32frombits(binary.LittleEndian.Uint32(out.Tensors()[0].Data[4*i:])); got != want {
			t.Errorf("element %d is %g, want %g", i, got, want)
		}
	}
}

// A run that is stopped ends early, and the next one runs.
func TestStop(t *testing.T) {
	s, err := library(t).Open(folder(t, map[string]string{"m.xml": chain(400, 300), "m.bin": ""}), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	meta := s.Metadata()
	in := []worker.Tensor{{Shape: tensor.Shape{400, 400}, Data: worker.NewBlock(4 * 400 * 400)[:4*400*400]}}
	out := func() *worker.Output { return worker.NewOutput(&meta, make([]byte, 1<<20)) }
	var whole time.Duration
	for range 2 { // the first one prepares kernels
		begin := time.Now()
		if err := s.Run(t.Context(), in, out()); err != nil {
			t.Fatal(err)
		}
		whole = time.Since(begin)
	}
	s.usual = time.Second // long enough to be worth it
	ctx, cancel := context.WithTimeout(t.Context(), whole/20)
	defer cancel()
	if err := s.Run(ctx, in, out()); !errors.Is(err, worker.ErrEngine) || !strings.Contains(err.Error(), "was stopped") {
		t.Errorf("a run that was stopped: got %v", err)
	}
	if err := s.Run(t.Context(), in, out()); err != nil {
		t.Errorf("the run after: got %v", err)
	}
}

func TestRefusals(t *testing.T) {
	l := library(t)
	for name, test := range map[string]struct {
		files map[string]string
		alone bool // the file, not its folder
		want  string
	}{
		"no weights":             {map[string]string{"m.xml": chain(2, 1)}, false, "put both in one folder"},
		"no weights, alone":      {map[string]string{"m": chain(2, 1)}, true, "put both in one folder"},
		"a SavedModel's graph":   {map[string]string{"m": "\x08\x01\x12"}, true, "serve its folder"},
		"a SavedModel cut short": {map[string]string{"saved_model.pb": "\x08\x01\x12"}, false, "not a model that OpenVINO"},
		"text":                   {map[string]string{"m": "this is no model"}, true, "neither IR, ONNX, TensorFlow Lite"},
		"a pickle":               {map[string]string{"m": "\x80\x04\x95 pickle"}, true, "neither IR, ONNX, TensorFlow Lite"},
		"empty":                  {map[string]string{"m": ""}, true, "not a model that OpenVINO"},
		"ONNX cut short":         {map[string]string{"m": "\x08\x08\x12\x04"}, true, "not a model that OpenVINO"},
		"TFLite cut short":       {map[string]string{"m": "\x1c\x00\x00\x00TFL3"}, true, "not a model that OpenVINO"},
		"IR of another kind":     {map[string]string{"m.xml": "<html/>", "m.bin": ""}, false, "not a model that OpenVINO"},
		"two models":             {map[string]string{"a.onnx": "", "b.onnx": ""}, false, "2 models"},
	} {
		path := folder(t, test.files)
		if test.alone {
			path = filepath.Join(path, "m")
		}
		s, err := l.Open(path, 1)
		if err == nil {
			_ = s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", name, err, test.want)
		}
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "model-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
