package core_test

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/ensemble"
	"oscine.dev/oscine/internal/serve/servetest"
	"oscine.dev/oscine/internal/tensor"
)

// Clients send and get the shapes that the manifest says, the model its own, also
// as a step of an ensemble and from the cache.
func TestReshape(t *testing.T) {
	r := servetest.New(t)
	shapes := core.Reshapes{
		Inputs:  []core.Reshape{{Name: "x", Client: tensor.Shape{2, -1, 2}, Model: tensor.Shape{-1, 4}}},
		Outputs: []core.Reshape{{Name: "y", Client: tensor.Shape{4, 1, -1}, Model: tensor.Shape{-1, 4}}},
	}
	r.Serve(core.Model{Name: "m", Reshapes: shapes, Cache: core.Caching{Bytes: 1 << 20}})
	r.Wait("m")
	if s := state(t, r, "m"); s.Inputs[0].Shape.String() != "[2,-1,2]" || s.Outputs[0].Shape.String() != "[4,1,-1]" || r.Registry.Outputs("m", "")[0].Shape.String() != "[4,1,-1]" {
		t.Errorf("clients see %v and %v", s.Inputs, s.Outputs)
	}
	e := &core.Ensemble{Steps: []ensemble.Step{{Model: "m", Inputs: map[string]string{"x": "x"}, Outputs: map[string]string{"y": "y"}}}}
	if err := r.Registry.Add(core.Model{Name: "e", Ensemble: e}); err != nil {
		t.Fatal(err)
	}
	r.Wait("e")
	data := make(core.Bytes, 32)
	for i := range 8 {
		binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(float32(i)))
	}
	for _, name := range []string{"m", "m", "e"} { // the second comes from the cache
		inputs := []core.Input{{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{2, 2, 2}, Data: data}}
		q := core.Request{Model: name, Inputs: inputs}
		if err := r.Registry.Accepts(t.Context(), &q); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		response, err := r.Registry.Infer(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		y := response.Outputs[slices.IndexFunc(response.Outputs, func(o core.Output) bool { return o.Name == "y" })]
		if y.Shape.String() != "[4,1,2]" || math.Float32frombits(binary.LittleEndian.Uint32(y.Data[28:])) != 14 || inputs[0].Shape.String() != "[2,2,2]" {
			t.Errorf("%s: got %+v, the request has %v", name, y, inputs[0].Shape)
		}
		response.Free()
	}
	for _, wrong := range []tensor.Shape{{2, 4}, {2, 2, 3}, {2, -1, 2}} {
		q := core.Request{Model: "m", Inputs: []core.Input{{Name: "x", Type: tensor.FP32, Shape: wrong, Data: data}}}
		if _, err := r.Registry.Infer(t.Context(), q); !errors.Is(err, core.ErrInvalid) || !errors.Is(r.Registry.Accepts(t.Context(), &q), core.ErrInvalid) {
			t.Errorf("%v: got %v, %v", wrong, err, r.Registry.Accepts(t.Context(), &q))
		}
	}
}

func TestReshapeThatDoesNotFit(t *testing.T) {
	r := servetest.New(t)
	for want, list := range map[string][]core.Reshape{
		"must have as many dimensions of -1": {{Name: "x", Client: tensor.Shape{-1, 4}, Model: tensor.Shape{1, 4}}},
		"as many elements in the others":     {{Name: "x", Client: tensor.Shape{5}, Model: tensor.Shape{1, 4}}},
	} {
		if err := r.Registry.Add(core.Model{Name: "m", Instances: core.One(doubler(t)), Reshapes: core.Reshapes{Inputs: list}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	for want, shapes := range map[string]core.Reshapes{
		`input "z" is not known`:             {Inputs: []core.Reshape{{Name: "z", Client: tensor.Shape{4}, Model: tensor.Shape{1, 4}}}},
		`input "x" has the shape [-1,4] in`:  {Inputs: []core.Reshape{{Name: "x", Client: tensor.Shape{2, 2}, Model: tensor.Shape{2, 2, 1}}}},
		`output "y" has the shape [-1,4] in`: {Outputs: []core.Reshape{{Name: "y", Client: tensor.Shape{5}, Model: tensor.Shape{1, 5}}}},
	} {
		r.Serve(core.Model{Name: "m", Reshapes: shapes})
		if err := r.Registry.WaitReady(t.Context(), "m"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		if err := r.Registry.Remove("m"); err != nil {
			t.Fatal(err)
		}
	}
}
