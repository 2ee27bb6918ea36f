package onnx

import (
	"context"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ebitengine/purego"
	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/engine/clib"
	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

// library loads the pinned ONNX Runtime, or skips the test.
func library(t testing.TB) *Library {
	t.Helper()
	dir, err := pack.Libraries(t.Context(), "onnxruntime", runtime.GOARCH, false, os.Stderr)
	if err != nil {
		t.Skip(err)
	}
	l, err := Load(filepath.Join(dir, Name))
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
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestMetadata(t *testing.T) {
	got := open(t, doubler("batch", 2, "n")).Metadata()
	want := channel.Metadata{
		Engine: got.Engine, Batch: true,
		Inputs:  []tensor.Spec{{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{-1, 2, -1}}},
		Outputs: []tensor.Spec{{Name: "y", Type: tensor.FP32, Shape: tensor.Shape{-1, 2, -1}}},
	}
	if diff := cmp.Diff(want, got); diff != "" || !strings.HasPrefix(got.Engine, "onnxruntime 1.") {
		t.Errorf("engine %q %s", got.Engine, diff)
	}
	if !open(t, doubler("whatever", 4)).Metadata().Batch {
		t.Error("a first dimension of another name is not joined, though its rows are independent")
	}
	const float = 1
	for name, m := range map[string][]byte{
		"a fixed batch": doubler(1, 4),
		"a scalar":      doubler(),
		"a sum over the rows": model(13, node("ReduceSum", "s", "x"), node("Sub", "y", "x", "s"),
			value(11, "x", float, "batch", 4), value(12, "y", float, "batch", 4)),
		"x·xᵀ": model(13, node("Transpose", "t", "x"), node("MatMul", "y", "x", "t"),
			value(11, "x", float, "batch", 4), value(12, "y", float, "batch", "batch")),
	} {
		if open(t, m).Metadata().Batch {
			t.Errorf("%s must not be joined into batches", name)
		}
	}
}

// kept is a model of y = x + w, whose w is in a file beside it.
func kept(file string) []byte {
	const float = 1
	entry := nested(13, str(1, "location"), str(2, file))
	w := nested(5, varint(1, 2), varint(2, float), str(8, "w"), entry, varint(14, 1))
	return model(13, node("Add", "y", "x", "w"), w, value(11, "x", float, 2), value(12, "y", float, 2))
}

func TestWeightsInAnotherFile(t *testing.T) {
	e := &Engine{loaded: library(t)}
	dir := filepath.Dir(writeModel(t, kept("w.data")))
	refused := func(path, want string) {
		t.Helper()
		if _, err := e.Open(path, worker.Options{Threads: 1}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	refused(dir, `in the file "w.data", which did not come with it`)
	if err := os.WriteFile(filepath.Join(dir, "w.data"), binary.LittleEndian.AppendUint64(nil, 0x4000_0000_3f80_0000), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(filepath.Join(dir, "model.onnx"), "did not come with it") // as a file alone nothing is beside it
	session, err := e.Open(dir, worker.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	s := session.(*Session)
	defer s.Close()
	x := tensor.Shape{2}
	if err := s.input(0, &worker.Tensor{Shape: x, Data: make([]byte, 8)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.compute([]int{0}, 0); err != nil {
		t.Fatal(err)
	}
	if y, _, err := s.output(0, 0); err != nil || binary.LittleEndian.Uint64(y) != 0x4000_0000_3f80_0000 {
		t.Errorf("y is %x, %v", y, err)
	}
	refused(filepath.Dir(writeModel(t, kept("../w.data"))), "outside its folder")
	if err := os.WriteFile(filepath.Join(dir, "other.onnx"), doubler(1), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(dir, "has 2 models: model.onnx, other.onnx")
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
		"directory":        {nil, ""},
	} {
		path := writeModel(t, test.raw)
		if name == "directory" {
			path = t.TempDir()
		}
		s, err := l.Open(path, 1)
		if err == nil {
			_ = s.Close()
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
	value, _, _ := purego.SyscallN(getenv, clib.String(noTelemetry))
	if got := clib.Text(value); got != "1" {
		t.Errorf("the library sees %s=%q, want 1", noTelemetry, got)
	}
}

// run runs a session on rows of four numbers, and doubles them.
func run(t testing.TB, s *Session, ctx context.Context, rows int, room int) ([]worker.Tensor, error) {
	t.Helper()
	data := make([]byte, 16*rows)
	for i := range 4 * rows {
		binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(float32(i)))
	}
	meta := s.Metadata()
	out := worker.NewOutput(&meta, make([]byte, room))
	err := s.Run(ctx, []worker.Tensor{{Shape: tensor.Shape{int64(rows), 4}, Data: data}}, out)
	return out.Tensors(), err
}

func TestRun(t *testing.T) {
	s := open(t, doubler("batch", 4))
	for _, rows := range []int{1, 5, 0, 1000} {
		got, err := run(t, s, t.Context(), rows, 16000)
		if err != nil || len(got) != 1 || got[0].Shape.String() != (tensor.Shape{int64(rows), 4}).String() {
			t.Errorf("%d rows: got %v, %v", rows, got, err)
			continue
		}
		for i := range 4 * rows {
			if got := math.Float32frombits(binary.LittleEndian.Uint32(got[0].Data[4*i:])); got != 2*float32(i) {
				t.Fatalf("element %d is %g, want %d", i, got, 2*i)
			}
		}
	}
	if _, err := run(t, s, t.Context(), 1001, 16000); err == nil || !strings.Contains(err.Error(), "spec.maxRequest") {
		t.Errorf("outputs beyond the slot: got %v", err)
	}
}

// A run that is stopped ends early, and the next one runs.
func TestStop(t *testing.T) {
	const float = 1
	var chain [][]byte
	last := "x"
	for i := range 4000 {
		next := "v" + strconv.Itoa(i)
		chain = append(chain, node("MatMul", next, last, "x"))
		last = next
	}
	s := open(t, model(13, append(chain, node("Identity", "y", last), value(11, "x", float, 64, 64), value(12, "y", float, 64, 64))...))
	meta := s.Metadata()
	in := []worker.Tensor{{Shape: tensor.Shape{64, 64}, Data: make([]byte, 4*64*64)}}
	begin := time.Now()
	if err := s.Run(t.Context(), in, worker.NewOutput(&meta, make([]byte, 1<<20))); err != nil {
		t.Fatal(err)
	}
	whole := time.Since(begin)
	s.usual = time.Second // long enough to be worth it
	ctx, cancel := context.WithTimeout(t.Context(), whole/20)
	defer cancel()
	if err := s.Run(ctx, in, worker.NewOutput(&meta, make([]byte, 1<<20))); err == nil || !strings.Contains(err.Error(), "terminate") {
		t.Errorf("a run that was stopped: got %v", err)
	}
	if err := s.Run(t.Context(), in, worker.NewOutput(&meta, make([]byte, 1<<20))); err != nil {
		t.Errorf("the run after: got %v", err)
	}
}
