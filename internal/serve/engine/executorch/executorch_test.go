package executorch

import (
	"encoding/binary"
	"flag"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

// engine is one with the pinned library, or the test is skipped.
func engine(t testing.TB) *Engine {
	t.Helper()
	dir, err := pack.Libraries(t.Context(), "executorch", runtime.GOARCH, false, os.Stderr)
	if err != nil {
		t.Skip(err)
	}
	e := new(Engine)
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	e.Flags(flags)
	if err := flags.Parse([]string{"--library", filepath.Join(dir, Name)}); err != nil {
		t.Fatal(err)
	}
	return e
}

// picture is a batch of the pictures that net.pte takes.
func picture(rows int) worker.Tensor {
	n := rows * 3 * 16 * 16
	data := worker.NewBlock(4 * n)[:4*n]
	for i := range n {
		binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(float32(i*7%17)/17))
	}
	return worker.Tensor{Shape: tensor.Shape{int64(rows), 3, 16, 16}, Data: data}
}

// The numbers are those that ExecuTorch's own Python API computes.
func TestRun(t *testing.T) {
	e := engine(t)
	s, err := e.Open("testdata/net.pte", worker.Options{Threads: 2, Values: map[string]string{"inputs": "picture:FP32[-1,3,16,16]"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	meta := s.Metadata()
	if in, out := meta.Inputs[0], meta.Outputs; in.Name != "picture" || in.Shape[0] != -1 || len(out) != 2 || out[0].Name != "output0" || out[0].Shape[0] != -1 {
		t.Errorf("got %+v", meta)
	}
	if err := worker.SelfTest(s, &meta, t.Errorf); err != nil {
		t.Error(err)
	}
	for _, rows := range []int{8, 1} {
		out := worker.NewOutput(&meta, make([]byte, 1<<10))
		if err := s.Run(t.Context(), []worker.Tensor{picture(rows)}, out); err != nil {
			t.Fatal(err)
		}
		got := out.Tensors()
		if want := (tensor.Shape{int64(rows), 4}); !slices.Equal(got[0].Shape, want) {
			t.Errorf("got %s, want %s", got[0].Shape, want)
		}
		for i, want := range []float32{0.19802338, 0.3545679, 0.23070334, 0.21670544} {
			if f := math.Float32frombits(binary.LittleEndian.Uint32(got[0].Data[4*i:])); math.Abs(float64(f-want)) > 1e-6 {
				t.Errorf("number %d is %g, want %g", i, f, want)
			}
		}
	}
	// More than the program was exported for fails, and the next run does not.
	out := worker.NewOutput(&meta, make([]byte, 1<<10))
	if err := s.Run(t.Context(), []worker.Tensor{picture(9)}, out); err == nil {
		t.Error("nine rows were computed, at most eight can be")
	}
	if err := s.Run(t.Context(), []worker.Tensor{picture(2)}, worker.NewOutput(&meta, make([]byte, 1<<10))); err != nil {
		t.Error(err)
	}
}

// Without a word on its dimensions, they are the greatest that it was exported for.
func TestUnstated(t *testing.T) {
	s, err := engine(t).Open("testdata/net.pte", worker.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	meta := s.Metadata()
	if in, out := meta.Inputs[0], meta.Outputs[1]; in.Name != "input0" || in.Shape.String() != "[8,3,16,16]" || out.Shape.String() != "[8,8]" {
		t.Errorf("got %+v", meta)
	}
	if err := worker.SelfTest(s, &meta, t.Errorf); err != nil {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	whole, err := os.ReadFile("testdata/net.pte")
	if err != nil {
		t.Fatal(err)
	}
	damaged := slices.Clone(whole)
	for i := 100; i < 1500; i += 7 {
		damaged[i] ^= 0xff
	}
	e := engine(t)
	for name, test := range map[string]struct {
		content []byte
		options map[string]string
		want    string
	}{
		"text":           {[]byte("this is no model"), nil, "no program of ExecuTorch"},
		"empty":          {nil, nil, "no program of ExecuTorch"},
		"cut off":        {whole[:2000], nil, "not a model that executorch 1.5.1 can load: the program"},
		"head only":      {whole[:8], nil, "not a model that executorch 1.5.1 can load: the program"},
		"damaged":        {damaged, nil, "not a model that executorch 1.5.1 can load: the program"},
		"method":         {whole, map[string]string{"method": "backward"}, "no method backward, it has forward"},
		"count":          {whole, map[string]string{"inputs": "a:FP32[1] b:FP32[1]"}, "the option inputs states 2, the model has 1"},
		"too large":      {whole, map[string]string{"inputs": "a:FP32[9,3,16,16]"}, "states a:FP32[9,3,16,16], the model has at most FP32[8,3,16,16]"},
		"type":           {whole, map[string]string{"inputs": "a:INT64[1,3,16,16]"}, "the model has at most FP32"},
		"rank":           {whole, map[string]string{"outputs": "a:FP32[8,4,1] b:FP32[8,8]"}, "the option outputs states a:FP32[8,4,1]"},
		"no sentence":    {whole, map[string]string{"inputs": "picture"}, `the option inputs: "picture": must be NAME:TYPE`},
		"state put back": {whole, map[string]string{"reset": "reset_states"}, "leave it out"},
	} {
		path := filepath.Join(t.TempDir(), "model.pte")
		if err := os.WriteFile(path, test.content, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := e.Open(path, worker.Options{Threads: 1, Values: test.options})
		if err == nil {
			_ = s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", name, err, test.want)
		}
	}
}
