package onnx

import (
	"encoding/binary"
	"math"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/ebitengine/purego"
	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

// library loads the pinned ONNX Runtime, or skips the test.
func library(t testing.TB) *Library {
	t.Helper()
	path, err := pack.Runtime(t.Context(), runtime.GOARCH, false, os.Stderr)
	if err != nil {
		t.Skip(err)
	}
	l, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func open(t testing.TB, raw []byte) *Session {
	t.Helper()
	s, err := library(t).Open(writeModel(t, raw), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestMetadata(t *testing.T) {
	got := *open(t, doubler("batch", 2, "n")).Metadata()
	want := channel.Metadata{
		Engine: got.Engine, Batch: true, Threads: 1,
		Inputs:  []tensor.Spec{{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{-1, 2, -1}}},
		Outputs: []tensor.Spec{{Name: "y", Type: tensor.FP32, Shape: tensor.Shape{-1, 2, -1}}},
	}
	if diff := cmp.Diff(want, got); diff != "" || !strings.HasPrefix(got.Engine, "onnxruntime 1.") {
		t.Errorf("engine %q %s", got.Engine, diff)
	}
	for name, dims := range map[string][]any{"fixed": {1, 4}, "scalar": {}, "time axis": {"sequence", 4}} {
		if open(t, doubler(dims...)).Metadata().Batch {
			t.Errorf("%s: %v must not be joined into batches", name, dims)
		}
	}
}

func TestRefusals(t *testing.T) {
	l := library(t)
	for name, test := range map[string]struct {
		raw  []byte
		want string
	}{
		"text":             {[]byte("this is no model"), "not a model that ONNX Runtime"},
		"empty":            {nil, "not a model that ONNX Runtime"},
		"cut off":          {doubler("batch", 4)[:30], "not a model that ONNX Runtime"},
		"unknown operator": {model(13, node("Quack", "y", "x"), value(11, "x", 1, 4), value(12, "y", 1, 4)), "Quack"},
		"future opset":     {model(9999, node("Add", "y", "x", "x"), value(11, "x", 1, 4), value(12, "y", 1, 4)), "can load: Load model from the file failed: ONNX Runtime only *guarantees*"},
		"strings":          {model(13, node("Identity", "y", "x"), value(11, "x", 8, 4), value(12, "y", 8, 4)), `input "x": holds strings`},
		"directory":        {nil, ""},
	} {
		path := writeModel(t, test.raw)
		if name == "directory" {
			path = t.TempDir()
		}
		s, err := l.Open(path, 1)
		if err == nil {
			s.Close()
			t.Errorf("%s was accepted", name)
			continue
		}
		if !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", name, err, test.want)
		}
	}
	if _, err := Load("/dev/null"); err == nil {
		t.Error("/dev/null was loaded as a library")
	}
}

// The library reads the C library's environment, not Go's.
func TestNoTelemetry(t *testing.T) {
	library(t)
	self, err := purego.Dlopen("libc.so.6", purego.RTLD_NOW)
	if err != nil {
		t.Skip(err)
	}
	getenv, err := purego.Dlsym(self, "getenv")
	if err != nil {
		t.Fatal(err)
	}
	value, _, _ := purego.SyscallN(getenv, cstring(noTelemetry).address())
	if got := text(value); got != "1" {
		t.Errorf("the library sees %s=%q, want 1", noTelemetry, got)
	}
}

// newCall prepares a call on memory of its own with rows of four numbers.
func newCall(rows int, first float32) channel.Call {
	c := channel.Call{Request: &channel.Request{Shapes: []tensor.Shape{{int64(rows), 4}}}, Result: &channel.Result{},
		Memory: make([]byte, 64<<10), Offsets: []int{0}, End: (16*rows + 63) &^ 63}
	for i := range 4 * rows {
		binary.LittleEndian.PutUint32(c.Memory[4*i:], math.Float32bits(first+float32(i)))
	}
	return c
}

func checkDoubled(t *testing.T, what string, c *channel.Call, rows int, first float32) {
	t.Helper()
	if c.Result.Err != "" || len(c.Result.Shapes) != 1 || c.Result.Shapes[0].String() != (tensor.Shape{int64(rows), 4}).String() {
		t.Errorf("%s: %q %v", what, c.Result.Err, c.Result.Shapes)
		return
	}
	for i := range 4 * rows {
		got := math.Float32frombits(binary.LittleEndian.Uint32(c.Memory[c.Result.Offsets[0]+4*i:]))
		if want := 2 * (first + float32(i)); got != want {
			t.Errorf("%s: element %d is %g, want %g", what, i, got, want)
			return
		}
	}
}

func TestInfer(t *testing.T) {
	for name, raw := range map[string][]byte{"joined": doubler("batch", 4), "one by one": doubler("rows", 4)} {
		s := open(t, raw)
		var calls []channel.Call
		for i := range 5 {
			calls = append(calls, newCall(i+1, float32(100*i)))
		}
		s.Infer(calls)
		for i := range calls {
			checkDoubled(t, name, &calls[i], i+1, float32(100*i))
		}
	}
}

func TestInferErrors(t *testing.T) {
	s := open(t, doubler("batch", 4))
	small := newCall(1000, 1)
	small.Memory = small.Memory[:small.End+100]
	good := newCall(1, 5)
	calls := []channel.Call{small, good}
	s.Infer(calls)
	if !strings.Contains(calls[0].Result.Err, "send a smaller batch") {
		t.Errorf("outputs beyond the slot: got %q", calls[0].Result.Err)
	}
	checkDoubled(t, "beside the failed one", &calls[1], 1, 5)
}
