package pytorch

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

func isARM() bool { return runtime.GOARCH == "arm64" }

// stated is what the options say of net.ts.
func stated(inputs, outputs string) map[string]string {
	return map[string]string{"inputs": inputs, "outputs": outputs}
}

// open loads net.ts with the pinned library, or skips the test.
func open(t testing.TB, options map[string]string) (worker.Session, error) {
	t.Helper()
	dir, err := pack.Libraries(t.Context(), "pytorch", runtime.GOARCH, false, os.Stderr)
	if err != nil {
		t.Skip(err)
	}
	e := new(Engine)
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	e.Flags(flags)
	if err := flags.Parse([]string{"--library", filepath.Join(dir, Name)}); err != nil {
		t.Fatal(err)
	}
	return e.Open("testdata/net.ts", worker.Options{Threads: 1, Values: options})
}

// The numbers are those that PyTorch's own Python API computes.
func TestRun(t *testing.T) {
	s, err := open(t, stated("picture:FP32[-1,3,16,16]", "answer:FP32[-1,4] seen:FP32[-1,8]"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	meta := s.Metadata()
	if err := worker.SelfTest(s, &meta, t.Errorf); err != nil {
		t.Fatal(err)
	}
	for _, rows := range []int{1, 8, 3} {
		n := rows * 3 * 16 * 16
		data := worker.NewBlock(4 * n)[:4*n]
		for i := range n {
			binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(float32(i*7%17)/17))
		}
		out := worker.NewOutput(&meta, make([]byte, 1<<10))
		if err := s.Run(t.Context(), []worker.Tensor{{Shape: tensor.Shape{int64(rows), 3, 16, 16}, Data: data}}, out); err != nil {
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
}

// What is stated wrongly is found when the model is loaded.
func TestStatedWrongly(t *testing.T) {
	for want, options := range map[string]map[string]string{
		"4, 16, 16] to have 3 channels":                        stated("picture:FP32[-1,4,16,16]", "answer:FP32[-1,4] seen:FP32[-1,8]"),
		"the model gives 2 outputs, 1 are stated":              stated("picture:FP32[-1,3,16,16]", "answer:FP32[-1,4]"),
		"4], stated is FP32[-1,5]":                             stated("picture:FP32[-1,3,16,16]", "answer:FP32[-1,5] seen:FP32[-1,8]"),
		"8], stated is INT64[-1,8]":                            stated("picture:FP32[-1,3,16,16]", "answer:FP32[-1,4] seen:INT64[-1,8]"),
		"no method backward, it has forward":                   {"inputs": "a:FP32[1]", "outputs": "b:FP32[1]", "method": "backward"},
		"no method reset_states, it has forward":               {"inputs": "a:FP32[1]", "outputs": "b:FP32[1]", "reset": "reset_states"},
		"the option inputs: \"picture\": must be NAME:TYPE[DI": stated("picture", "answer:FP32[-1,4]"),
	} {
		s, err := open(t, options)
		if err == nil {
			meta := s.Metadata()
			err = worker.SelfTest(s, &meta, t.Logf)
			_ = s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %s", options, err, want)
		}
	}
}
