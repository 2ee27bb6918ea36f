package optimize

import (
	"encoding/binary"
	"math"
	"testing"

	"oscine.dev/oscine/internal/tensor"
)

// fp32 is a tensor of these numbers.
func fp32(shape tensor.Shape, numbers ...float32) Tensor {
	t := Tensor{Type: tensor.FP32, Shape: shape}
	for _, n := range numbers {
		t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(n))
	}
	return t
}

// scoresOf are answers of one row each, which prefer the given classes of three.
func scoresOf(classes ...int) Answers {
	var a Answers
	for _, c := range classes {
		row := []float32{0.1, 0.2, 0.3}
		row[c] = 0.9
		a = append(a, []Tensor{fp32(tensor.Shape{1, 3}, row...)})
	}
	return a
}

func vector(numbers ...float32) Answers {
	return Answers{{fp32(tensor.Shape{int64(len(numbers))}, numbers...)}}
}

func TestCompare(t *testing.T) {
	nan := float32(math.NaN())
	for name, test := range map[string]struct {
		original, result Answers
		labels           []int
		measure          Measure
		want             Accuracy
	}{
		"the same classes":       {scoresOf(0, 1, 2, 0), scoresOf(0, 1, 2, 0), nil, Auto, Accuracy{Measure: Top1, Inputs: 4}},
		"one class is another":   {scoresOf(0, 1, 2, 0), scoresOf(0, 1, 2, 1), nil, Auto, Accuracy{Measure: Top1, Inputs: 4, Drop: 0.25}},
		"labels":                 {scoresOf(0, 1, 2, 0), scoresOf(0, 1, 1, 1), []int{0, 1, 2, 2}, Auto, Accuracy{Measure: Labels, Inputs: 4, Original: 0.75, Result: 0.5, Drop: 0.25}},
		"better than before":     {scoresOf(0, 0), scoresOf(0, 1), []int{0, 1}, Auto, Accuracy{Measure: Labels, Inputs: 2, Original: 0.5, Result: 1}},
		"no scores":              {vector(3, 4), vector(3, 4.05), nil, Auto, Accuracy{Measure: Difference, Inputs: 1, Drop: 0.01}},
		"scores, by difference":  {scoresOf(0), scoresOf(0), nil, Difference, Accuracy{Measure: Difference, Inputs: 1}},
		"not a number":           {vector(3, 4), vector(3, nan), nil, Auto, Accuracy{Measure: Difference, Inputs: 1, Drop: 1}},
		"both not a number":      {vector(3, nan), vector(3, nan), nil, Auto, Accuracy{Measure: Difference, Inputs: 1}},
		"another shape":          {vector(3, 4), vector(3), nil, Auto, Accuracy{Measure: Difference, Inputs: 1, Drop: 1}},
		"something from nothing": {vector(0, 0), vector(0, 1), nil, Auto, Accuracy{Measure: Difference, Inputs: 1, Drop: 1}},
	} {
		got, err := Compare(test.original, test.result, test.labels, test.measure)
		if math.Abs(got.Drop-test.want.Drop) < 1e-6 {
			got.Drop = test.want.Drop
		}
		if err != nil || got != test.want {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, test.want)
		}
	}
	row := Answers{{fp32(tensor.Shape{1, 3}, nan, nan, nan)}}
	if got, err := Compare(scoresOf(0), row, nil, Auto); err != nil || got.Drop != 1 {
		t.Errorf("a row of no numbers counts as the class %+v, %v", got, err)
	}
	if got, err := Compare(scoresOf(0, 2), scoresOf(1, 1), []int{1, 3}, Auto); err == nil {
		t.Errorf("labels that are numbered from 1: got %+v, want a refusal", got)
	}
	for name, measure := range map[string]Measure{"no labels": Labels, "no classes": Top1} {
		if got, err := Compare(vector(1), vector(1), nil, measure); err == nil {
			t.Errorf("%s: got %+v, want a refusal", name, got)
		}
	}
}
