package core_test

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/ensemble"
	"oscine.dev/oscine/internal/serve/servetest"
)

type tensors = map[string]string

// plusThenDouble is an ensemble of the models plus and double.
func plusThenDouble() *core.Ensemble {
	return &core.Ensemble{Steps: []ensemble.Step{
		{Model: "double", Inputs: tensors{"x": "mid"}, Outputs: tensors{"y": "out"}},
		{Model: "plus", Inputs: tensors{"x": "raw"}, Outputs: tensors{"y": "mid"}},
	}}
}

func raw(first float32) []core.Input {
	in := servetest.Row(first)
	in[0].Name = "raw"
	return in
}

func ready(r *servetest.Rig, name string) core.Status {
	r.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s, err := r.Registry.Status(name)
		if err != nil {
			r.Fatal(err)
		}
		if s.State == core.Ready {
			return s
		}
		if time.Now().After(end) {
			r.Fatal(s.Reason())
		}
	}
}

func TestEnsemble(t *testing.T) {
	r := servetest.New(t)
	if err := r.Registry.Add(core.Model{Name: "both", ServedAs: "Both", Ensemble: plusThenDouble()}); err != nil {
		t.Fatal(err)
	}
	q := core.Request{Model: "Both", Inputs: raw(3)}
	if _, err := r.Registry.Infer(t.Context(), q); !errors.Is(err, core.ErrNotReady) {
		t.Errorf("before its models: got %v", err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s, _ := r.Registry.Status("both")
		if s.State == core.Waiting && strings.Contains(s.Message, "step 2 (plus): model not found") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("got %+v", s)
		}
	}
	testEngine(r, "plus", "add")
	r.Ready("double")
	s := ready(r, "both")
	if s.Platform != "ensemble" || s.Inputs[0].Name != "raw" || s.Inputs[0].Shape.String() != "[-1,4]" || len(s.Outputs) != 1 || s.Outputs[0].Name != "out" {
		t.Errorf("got %+v", s)
	}
	if err := r.Registry.Accepts(t.Context(), &q); err != nil {
		t.Error(err)
	}
	response, err := r.Registry.Infer(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	if got := math.Float32frombits(binary.LittleEndian.Uint32(response.Outputs[0].Data)); got != 8 || response.Model != "Both" || response.Outputs[0].Name != "out" {
		t.Errorf("got %g of %+v, want 8", got, response)
	}
	response.Free()
	for _, test := range []struct {
		q    core.Request
		want string
	}{
		{core.Request{Model: "Both", Inputs: raw(666)}, "step 2 (plus): invalid request: 666 cannot be added to"},
		{core.Request{Model: "Both", Inputs: servetest.Row(1)}, `input "raw" is missing`},
		{core.Request{Model: "Both", Inputs: raw(1), Outputs: []string{"mid"}}, `output "mid" is not known`},
		{core.Request{Model: "Both", Inputs: raw(1), Sequence: core.Sequence{ID: "1", Start: true}}, "no step of both keeps state"},
	} {
		if _, err := r.Registry.Infer(t.Context(), test.q); !errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want %s", err, test.want)
		}
	}
	if _, err := r.Registry.Infer(t.Context(), core.Request{Model: "Both", Inputs: raw(1), Timeout: time.Nanosecond}); !errors.Is(err, core.ErrExpired) || !strings.Contains(err.Error(), "step 2 (plus)") {
		t.Errorf("got %v", err)
	}
	if s, err := r.Registry.Status("both"); err != nil || s.Requests != 7 || s.Errors != 6 || s.Expired != 1 {
		t.Errorf("got %+v, %v", s, err)
	}
	// Intermediate tensors can be asked for, where the ensemble says so.
	more := plusThenDouble()
	more.Outputs = []string{"out", "mid"}
	if err := r.Registry.Replace(t.Context(), core.Model{Name: "both", ServedAs: "Both", Ensemble: more}); err != nil {
		t.Fatal(err)
	}
	response, err = r.Registry.Infer(t.Context(), core.Request{Model: "Both", Inputs: raw(3), Outputs: []string{"mid"}})
	if err != nil || len(response.Outputs) != 1 || math.Float32frombits(binary.LittleEndian.Uint32(response.Outputs[0].Data)) != 4 {
		t.Errorf("got %+v, %v", response, err)
	}
	response.Free()
	// What becomes of a step becomes of the ensemble.
	if err := r.Registry.Remove("double"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Registry.Infer(t.Context(), q); !errors.Is(err, core.ErrNotFound) || !strings.Contains(err.Error(), "step 1 (double)") {
		t.Errorf("got %v", err)
	}
}

func TestEnsembleOfModelsThatDoNotFit(t *testing.T) {
	r := servetest.New(t)
	testEngine(r, "plus", "add")
	testEngine(r, "total", "total")
	testEngine(r, "upper", "upper")
	r.Ready("double")
	step := func(model string, in, out tensors) ensemble.Step {
		return ensemble.Step{Model: model, Inputs: in, Outputs: out}
	}
	plus := step("plus", tensors{"x": "raw"}, tensors{"y": "mid"})
	for name, test := range map[string]struct {
		steps []ensemble.Step
		want  string
	}{
		"types":        {[]ensemble.Step{plus, step("total", tensors{"n": "mid", "before": "b"}, tensors{"total": "t"})}, `step 2 (total): input "n": it is INT32, the tensor "mid" is FP32`},
		"unmapped":     {[]ensemble.Step{plus, step("total", tensors{"n": "k"}, tensors{"total": "t"})}, `step 2 (total): input "before" of the model is not mapped`},
		"unknown":      {[]ensemble.Step{step("plus", tensors{"x": "raw", "z": "raw"}, tensors{"y": "mid"})}, `step 1 (plus): input "z" is not known (the model's inputs are x)`},
		"output":       {[]ensemble.Step{step("plus", tensors{"x": "raw"}, tensors{"z": "mid"})}, `step 1 (plus): output "z" is not known`},
		"ranks":        {[]ensemble.Step{step("double", tensors{"x": "raw"}, tensors{"batch": "n"}), step("total", tensors{"n": "n", "before": "raw2"}, tensors{"total": "t"}), step("upper", tensors{"text": "t"}, tensors{"upper": "u"})}, `step 3 (upper): input "text": it is BYTES, the tensor "t" is INT32`},
		"a cycle":      {[]ensemble.Step{step("plus", tensors{"x": "a"}, tensors{"y": "a"})}, "a cycle"},
		"fits":         {[]ensemble.Step{plus}, ""},
		"not yet here": {[]ensemble.Step{plus, step("later", tensors{"x": "mid"}, tensors{"y": "out"})}, ""},
	} {
		err := r.Registry.CheckEnsemble(&core.Ensemble{Steps: test.steps})
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v, want %s", name, err, test.want)
		}
	}
	for _, m := range []core.Model{
		{Name: "outer", Ensemble: &core.Ensemble{Steps: []ensemble.Step{step("outer", tensors{"x": "a"}, tensors{"y": "b"})}}},
		{Name: "wrong", Ensemble: &core.Ensemble{Steps: []ensemble.Step{plus, step("total", tensors{"n": "mid", "before": "b"}, tensors{"total": "t"})}}},
	} {
		if err := r.Registry.Add(m); err != nil {
			t.Fatal(err)
		}
		if err := r.Registry.WaitReady(t.Context(), m.Name); !errors.Is(err, core.ErrNotReady) || !strings.Contains(err.Error(), "the steps do not fit: step") {
			t.Errorf("got %v", err)
		}
	}
	if err := r.Registry.Add(core.Model{Name: "cycle", Ensemble: &core.Ensemble{Steps: []ensemble.Step{step("plus", tensors{"x": "a"}, tensors{"y": "a"})}}}); err == nil {
		t.Error("a cycle was accepted")
	}
}

// No step reaches an ensemble, whichever version gets its requests.
func TestStepsReachNoEnsemble(t *testing.T) {
	r := servetest.New(t)
	testEngine(r, "plus", "add")
	all, half := 100, 50
	steps := &core.Ensemble{Steps: []ensemble.Step{{Model: "plus", Inputs: tensors{"x": "x"}, Outputs: tensors{"y": "y"}}}}
	if err := r.Registry.Add(core.Model{Name: "loop", ServedAs: "plus", Version: "0", Ensemble: steps, Routing: core.Routing{Shadow: true}}); err != nil {
		t.Fatal(err)
	}
	ready(r, "loop")
	q := core.Request{Model: "plus", Version: "0", Inputs: servetest.Row(1)}
	ask := func() error {
		response, err := r.Registry.Infer(t.Context(), q)
		response.Free()
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // a shadow of its own would go on without end
	if s, _ := r.Registry.Status("loop"); s.Requests != 1 {
		t.Errorf("the ensemble computed %d requests, want 1", s.Requests)
	}
	if err := r.Registry.Route("loop", core.Routing{Traffic: &all}); err != nil {
		t.Fatal(err)
	}
	if err := ask(); !errors.Is(err, core.ErrNotReady) || !strings.Contains(err.Error(), "step 1 (plus): model not ready: loop is an ensemble itself") {
		t.Errorf("got %v", err)
	}
	if err := r.Registry.Route("loop", core.Routing{Traffic: &half}); err != nil {
		t.Fatal(err)
	}
	// Without the model that answered its steps it has none, and takes no requests.
	if err := r.Registry.Remove("plus"); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if s, _ := r.Registry.Status("loop"); s.State == core.Failed {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it is not noticed")
		}
	}
	if err := r.Registry.Accepts(t.Context(), &q); !errors.Is(err, core.ErrNotReady) || !strings.Contains(err.Error(), "model loop is failed: the steps do not fit") {
		t.Errorf("got %v", err)
	}
}

// Ensembles that wait for room while they hold answers would wait for each other, and
// everybody else behind them.
func TestEnsembleHoldsNoRoomWhileItWaits(t *testing.T) {
	r := servetest.New(t)
	testEngine(r, "plus", "add")
	r.Ready("double")
	if err := r.Registry.Add(core.Model{Name: "both", Ensemble: plusThenDouble()}); err != nil {
		t.Fatal(err)
	}
	ready(r, "both")
	r.Registry.SetAnswers(16) // of the first step
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := r.Registry.Infer(ctx, core.Request{Model: "both", Inputs: raw(3)}); !errors.Is(err, core.ErrOverloaded) || !strings.Contains(err.Error(), "step 1 (double)") || ctx.Err() != nil {
		t.Errorf("got %v, %v", err, ctx.Err())
	}
	r.Registry.SetAnswers(1 << 20)
	response, err := r.Registry.Infer(t.Context(), core.Request{Model: "both", Inputs: raw(3)})
	if err != nil {
		t.Fatal(err)
	}
	response.Free()
}
