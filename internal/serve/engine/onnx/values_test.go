package onnx

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

func floats(list ...float32) []byte {
	var b []byte
	for _, f := range list {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
	}
	return b
}

func texts(list ...string) []byte {
	var b []byte
	for _, s := range list {
		b = tensor.AppendString(b, []byte(s))
	}
	return b
}

// answer runs a session on one input and returns its outputs.
func answer(t *testing.T, s *Session, shape tensor.Shape, data []byte) ([]worker.Tensor, error) {
	t.Helper()
	meta := s.Metadata()
	memory := worker.NewBlock(1 << 20)
	t.Cleanup(memory.Free)
	in := memory[:copy(memory, data)]
	out := worker.NewOutput(&meta, make([]byte, 1<<20))
	err := s.Run(t.Context(), []worker.Tensor{{Shape: shape, Data: in}}, out)
	return out.Tensors(), err
}

func TestStrings(t *testing.T) {
	const text = 8
	s := open(t, model(13, node("Identity", "y", "x"), value(11, "x", text, "n", 2), value(12, "y", text, "n", 2)))
	if in := s.Metadata().Inputs[0]; in.Type != tensor.Bytes || in.Shape.String() != "[-1,2]" {
		t.Errorf("input %+v", in)
	}
	want := texts("", "größe", strings.Repeat("long", 5000), "x")
	got, err := answer(t, s, tensor.Shape{2, 2}, want)
	if err != nil || len(got) != 1 || string(got[0].Data) != string(want) || got[0].Shape.String() != "[2,2]" {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err = answer(t, s, tensor.Shape{0, 2}, nil); err != nil || len(got[0].Data) != 0 || got[0].Shape.String() != "[0,2]" {
		t.Errorf("none: got %+v, %v", got, err)
	}
	if _, err := answer(t, s, tensor.Shape{1, 2}, texts("a\x00b", "c")); err == nil || !strings.Contains(err.Error(), "string 0 has a zero byte") {
		t.Errorf("a zero byte: %v", err)
	}
}

func TestUnknownRank(t *testing.T) {
	const float = 1
	unranked := func(field int, name string) []byte {
		return nested(field, str(1, name), nested(2, nested(1, varint(1, float))))
	}
	s := open(t, model(13, node("Neg", "y", "x"), unranked(11, "x"), unranked(12, "y")))
	meta := s.Metadata()
	if !meta.Inputs[0].AnyRank || !meta.Outputs[0].AnyRank || meta.Batch {
		t.Errorf("metadata %+v", meta)
	}
	for _, shape := range []tensor.Shape{{}, {2}, {1, 2, 1}} {
		n, _ := shape.Elements()
		got, err := answer(t, s, shape, floats(slices.Repeat([]float32{2}, n)...))
		if err != nil || !slices.Equal(got[0].Shape, shape) || string(got[0].Data) != string(floats(slices.Repeat([]float32{-2}, n)...)) {
			t.Errorf("%v: got %+v, %v", shape, got, err)
		}
	}
	if scalar := open(t, doubler()).Metadata().Inputs[0]; scalar.AnyRank {
		t.Error("a scalar is of any rank")
	}
}

// zipMap is what scikit-learn's exporter puts behind a classifier: a map from
// labels to probabilities for each row.
func zipMap(labels []byte, key uint64) []byte {
	const float, learn = 1, "ai.onnx.ml"
	entry := nested(5, varint(1, key), nested(2, nested(1, varint(1, float)))) // a map's type
	out := nested(12, str(1, "probabilities"), nested(2, nested(4, nested(1, entry))))
	operator := nested(1, str(1, "x"), str(2, "probabilities"), str(4, "ZipMap"), str(7, learn), labels)
	m := model(13, operator, value(11, "x", float, "n", 3), out)
	return append(m, nested(8, str(1, learn), varint(2, 1))...)
}

func TestMapsAreTables(t *testing.T) {
	const ints, strs = 7, 8
	for name, m := range map[string][]byte{
		"numbers": zipMap(nested(5, str(1, "classlabels_int64s"), varint(8, 3), varint(8, 5), varint(8, 9), varint(20, ints)), 7),
		"names":   zipMap(nested(5, str(1, "classlabels_strings"), str(9, "cat"), str(9, "dog"), str(9, "owl"), varint(20, strs)), 8),
	} {
		s := open(t, m)
		want := []tensor.Spec{{Name: "probabilities", Type: tensor.FP32, Shape: tensor.Shape{-1, -1}}}
		if diff := cmp.Diff(want, s.Metadata().Outputs); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		data := floats(0.5, 0.25, 0.25, 0.125, 0.75, 0.125)
		for range 2 {
			got, err := answer(t, s, tensor.Shape{2, 3}, data)
			if err != nil || len(got) != 1 || got[0].Shape.String() != "[2,3]" || string(got[0].Data) != string(data) {
				t.Errorf("%s: got %+v, %v", name, got, err)
			}
		}
	}
}

func TestSequencesAreRefusedByName(t *testing.T) {
	const float = 1
	out := nested(12, str(1, "parts"), nested(2, nested(4, nested(1, nested(1, varint(1, float))))))
	m := model(13, node("SplitToSequence", "parts", "x"), value(11, "x", float, "n", 3), out)
	if _, err := library(t).Open(writeModel(t, m), 1); err == nil || !strings.Contains(err.Error(), `output "parts": is a sequence of tensors`) {
		t.Errorf("got %v", err)
	}
}
