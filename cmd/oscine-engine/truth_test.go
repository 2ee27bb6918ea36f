package main

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/serve/engine"
	"oscine.dev/oscine/internal/serve/engine/modeltest"
	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

// open loads a model with one of the program's engines and one thread.
func open(t testing.TB, name, model string, values map[string]string) (worker.Session, error) {
	t.Helper()
	dir, err := pack.Libraries(t.Context(), name, runtime.GOARCH, false, os.Stderr)
	if err != nil {
		t.Skip(err)
	}
	e := engine.All()[name]
	s, err := e.Open(filepath.Join(dir, e.Library), model, worker.Options{Threads: 1, Values: values})
	if err == nil {
		t.Cleanup(func() { _ = s.Close() })
	}
	return s, err
}

func mustOpen(t testing.TB, engine, model string) worker.Session {
	t.Helper()
	s, err := open(t, engine, modeltest.Path(t, model), nil)
	if err != nil {
		t.Fatalf("%s with %s: %v", model, engine, err)
	}
	return s
}

// element is the i-th number of every input: testdata/reference.py has the same.
func element(data []byte, kind tensor.DataType, i int) {
	whole := i * 7 % 17
	switch kind {
	case tensor.FP32:
		binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(float32(whole)/17))
	case tensor.Int64:
		binary.LittleEndian.PutUint64(data[8*i:], uint64(whole))
	default:
		data[i] = byte(whole)
	}
}

// inputs are inputs with open dimensions of the given size, and as the
// reference takes them.
func inputs(t testing.TB, s worker.Session, open int64) (list []worker.Tensor, specs []string) {
	t.Helper()
	for _, spec := range s.Metadata().Inputs {
		shape := slices.Clone(spec.Shape)
		var dims []string
		for i, d := range shape {
			if d < 0 {
				shape[i] = open
			}
			dims = append(dims, fmt.Sprint(shape[i]))
		}
		n, err := shape.Bytes(spec.Type)
		if err != nil {
			t.Fatal(err)
		}
		data := worker.NewBlock(n)[:n]
		for i := range n / spec.Type.Size() {
			element(data, spec.Type, i)
		}
		kind := map[tensor.DataType]string{tensor.FP32: "float32", tensor.Int64: "int64", tensor.Uint8: "uint8"}[spec.Type]
		list = append(list, worker.Tensor{Shape: shape, Data: data})
		specs = append(specs, spec.Name+"="+kind+":"+strings.Join(dims, "x"))
	}
	return list, specs
}

// output is an output by its name.
type output struct {
	name string
	worker.Tensor
}

func run(t testing.TB, s worker.Session, in []worker.Tensor) []output {
	t.Helper()
	meta := s.Metadata()
	out := worker.NewOutput(&meta, make([]byte, 64<<20))
	if err := s.Run(t.Context(), in, out); err != nil {
		t.Fatal(err)
	}
	var list []output
	for i, o := range out.Tensors() {
		list = append(list, output{meta.Outputs[i].Name, o})
	}
	return list
}

// python is one that has the engines' own packages, or the test is skipped.
func python(t testing.TB) string {
	t.Helper()
	path := os.Getenv("OSCINE_ENGINES_PYTHON")
	if path == "" {
		t.Skip("needs a Python with the engines' own packages: make test-engines")
	}
	return path
}

// TestAgainstPython compares every engine with its own Python API, bit for bit.
func TestAgainstPython(t *testing.T) {
	program := python(t)
	for _, test := range []struct{ engine, model string }{
		{"onnxruntime", modeltest.BasicPitchONNX}, {"onnxruntime", modeltest.Silero}, {"onnxruntime", modeltest.Direction},
		{"openvino", modeltest.BasicPitchONNX}, {"openvino", modeltest.BasicPitchTFLite}, {"openvino", modeltest.BasicPitchSavedModel},
		{"openvino", modeltest.Hand}, {"openvino", modeltest.Direction},
		{"litert", modeltest.Face}, {"litert", modeltest.Hand},
	} {
		t.Run(test.engine+"/"+test.model, func(t *testing.T) {
			s := mustOpen(t, test.engine, test.model)
			open := map[string]int64{modeltest.Direction: 48, modeltest.Silero: 512}[test.model] // pictures, sounds
			in, specs := inputs(t, s, max(1, open))
			all, want := join(test.engine, run(t, s, in)), reference(t, program, test.engine, modeltest.Path(t, test.model), specs)
			// OpenVINO's graph of a SavedModel depends on the order in which it is read.
			if test.model == modeltest.BasicPitchSavedModel && len(all) == len(want) {
				if d := difference(all, want); d > 1e-6 {
					t.Errorf("differs by %g, want at most 1e-6", d)
				}
				return
			}
			if !bytes.Equal(all, want) {
				t.Errorf("%d bytes differ from the %d of the engine's own API", len(all), len(want))
			}
		})
	}
}

// join is all outputs in the order of the reference: that of their names, or of
// their own where the engine's API has none.
func join(engine string, list []output) (all []byte) {
	if engine == "onnxruntime" || engine == "litert" {
		slices.SortFunc(list, func(a, b output) int { return cmp.Compare(a.name, b.name) })
	}
	for _, o := range list {
		all = append(all, o.Data...)
	}
	return all
}

// reference is what the engine's own Python API computes.
func reference(t *testing.T, program, engine, model string, specs []string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "outputs")
	args := append([]string{"testdata/reference.py", engine, model, file}, specs...)
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return want
}

// TestExported compares engines with PyTorch's own API on models that its tools
// have just exported.
func TestExported(t *testing.T) {
	program, dir := python(t), t.TempDir()
	if out, err := exec.Command(program, "testdata/export.py", dir).CombinedOutput(); err != nil {
		t.Fatalf("export: %v\n%s", err, out)
	}
	for _, test := range []struct {
		engine, model string
		options       map[string]string
		open          []int64
	}{
		{"executorch", "net.pte", map[string]string{"inputs": "picture:FP32[-1,3,16,16]"}, []int64{1, 8, 3}},
		{"executorch", "portable.pte", map[string]string{"inputs": "picture:FP32[-1,3,16,16]"}, []int64{1, 8}},
		{"pytorch", "net.ts", map[string]string{"inputs": "picture:FP32[-1,3,16,16]", "outputs": "answer:FP32[-1,4] seen:FP32[-1,8]"}, []int64{1, 8}},
		// Of dynamic dimensions AOTInductor accepts no 1.
		{"pytorch", "net.pt2", map[string]string{"inputs": "picture:FP32[-1,3,16,16]", "outputs": "answer:FP32[-1,4] seen:FP32[-1,8]"}, []int64{2, 8}},
	} {
		t.Run(test.engine+"/"+test.model, func(t *testing.T) {
			model := filepath.Join(dir, test.model)
			s, err := open(t, test.engine, model, test.options)
			if err != nil {
				t.Fatal(err)
			}
			for _, rows := range test.open {
				in, specs := inputs(t, s, rows)
				got, want := join(test.engine, run(t, s, in)), reference(t, program, test.engine, model, specs)
				if len(got) == 0 || !bytes.Equal(got, want) {
					t.Errorf("%d rows: %d bytes differ from the %d of the engine's own API", rows, len(got), len(want))
				}
			}
		})
	}
}

// TestSilero runs a model of TorchScript that takes a number and has a state, against
// PyTorch's own API.
func TestSilero(t *testing.T) {
	options := map[string]string{"inputs": "sound:FP32[1,512] rate:INT64[]", "outputs": "speech:FP32[1,1]"}
	script := func(reset string) worker.Session {
		with := maps.Clone(options)
		with["reset"] = reset
		s, err := open(t, "pytorch", modeltest.Path(t, modeltest.SileroScript), with)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	stateful, alone := script(""), script("reset_states")
	in, specs := inputs(t, stateful, 1)
	const rate = 16000
	binary.LittleEndian.PutUint64(in[1].Data, rate)
	specs[1] += fmt.Sprint(":", rate)
	first := join("pytorch", run(t, stateful, in))
	for range 2 {
		if got := join("pytorch", run(t, alone, in)); !bytes.Equal(got, first) {
			t.Errorf("with its state put back it answers %x, without any %x", got, first)
		}
	}
	if again := join("pytorch", run(t, stateful, in)); bytes.Equal(again, first) {
		t.Error("its state says nothing")
	}
	if want := reference(t, python(t), "pytorch", modeltest.Path(t, modeltest.SileroScript), specs); len(first) != 4 || !bytes.Equal(first, want) {
		t.Errorf("it answers %x, PyTorch's own API %x", first, want)
	}
}

// difference is the greatest between two lists of FP32, NaN where one is none.
func difference(a, b []byte) float64 {
	most := 0.0
	for i := 0; i+4 <= min(len(a), len(b)); i += 4 {
		x, y := math.Float32frombits(binary.LittleEndian.Uint32(a[i:])), math.Float32frombits(binary.LittleEndian.Uint32(b[i:]))
		most = math.Max(most, math.Abs(float64(x)-float64(y)))
	}
	return most
}

// TestAcrossEngines compares engines that read the same model, in one format or in
// several.
func TestAcrossEngines(t *testing.T) {
	type by struct{ engine, model string }
	for name, test := range map[string]struct {
		a, b  by
		order []int // of b's outputs, where names or order differ between formats
		open  int64
		limit float64
	}{
		"one ONNX":        {by{"onnxruntime", modeltest.BasicPitchONNX}, by{"openvino", modeltest.BasicPitchONNX}, nil, 1, 1e-3},
		"pictures":        {by{"onnxruntime", modeltest.Direction}, by{"openvino", modeltest.Direction}, nil, 48, 1e-4},
		"one TFLite":      {by{"litert", modeltest.Hand}, by{"openvino", modeltest.Hand}, nil, 1, 1e-2},
		"ONNX and TFLite": {by{"openvino", modeltest.BasicPitchONNX}, by{"openvino", modeltest.BasicPitchTFLite}, nil, 1, 1e-3},
		"two of a folder": {by{"tensorflow", modeltest.BasicPitchSavedModel}, by{"openvino", modeltest.BasicPitchSavedModel}, nil, 1, 1e-3},
		"TF and ONNX":     {by{"tensorflow", modeltest.BasicPitchSavedModel}, by{"onnxruntime", modeltest.BasicPitchONNX}, nil, 1, 1e-3},
		"ONNX and folder": {by{"onnxruntime", modeltest.BasicPitchONNX}, by{"openvino", modeltest.BasicPitchSavedModel}, nil, 1, 1e-3},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := mustOpen(t, test.a.engine, test.a.model), mustOpen(t, test.b.engine, test.b.model)
			in, _ := inputs(t, a, test.open)
			first := run(t, a, in)
			in, _ = inputs(t, b, test.open)
			second := run(t, b, in)
			for i, o := range first {
				other := slices.IndexFunc(second, func(p output) bool { return p.name == o.name })
				if other < 0 { // the closest of the same shape
					other = closest(o, second)
				}
				if other < 0 {
					t.Errorf("output %d %s %s: the other has %v", i, o.name, o.Shape, names(second))
					continue
				}
				if d := difference(o.Data, second[other].Data); !(d <= test.limit) {
					t.Errorf("output %s differs by %g, want at most %g", o.name, d, test.limit)
				} else {
					t.Logf("output %s differs by %g", o.name, d)
				}
			}
		})
	}
}

func closest(o output, list []output) int {
	best, at := math.Inf(1), -1
	for i, p := range list {
		if d := difference(o.Data, p.Data); slices.Equal(o.Shape, p.Shape) && d < best {
			best, at = d, i
		}
	}
	return at
}

func names(list []output) (all []string) {
	for _, o := range list {
		all = append(all, o.name+" "+o.Shape.String())
	}
	return all
}

// LiteRT answers some models with zeros: they are refused when they are loaded,
// with the reason.
func TestRefusedBySelfTest(t *testing.T) {
	for model, want := range map[string]string{
		modeltest.BasicPitchTFLite: "the engine",
		modeltest.Attention:        "LiteRT cannot run the model",
	} {
		s := mustOpen(t, "litert", model)
		meta := s.Metadata()
		err := worker.SelfTest(s, &meta, t.Logf)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", model, err, want)
		}
	}
	if _, err := open(t, "openvino", modeltest.Path(t, modeltest.Attention), nil); err == nil {
		t.Error("OpenVINO loads operators that it does not have")
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"tensorrt"}, {"onnxruntime"}} {
		if got := runProgram(args, io.Discard); got != worker.ExitUsage {
			t.Errorf("%v: status %d, want %d", args, got, worker.ExitUsage)
		}
	}
}
