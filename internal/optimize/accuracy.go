package optimize

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"oscine.dev/oscine/internal/tensor"
)

// Accuracy is what the result answers against what the original does.
type Accuracy struct {
	Measure Measure `json:"measure"`
	Inputs  int     `json:"inputs"` // rows, or for the difference runs, or tokens
	MadeUp  bool    `json:"madeUp,omitempty"`
	// Original and Result are the shares of rows that each has right, of Labels, or
	// the perplexities.
	Original float64 `json:"original,omitempty"`
	Result   float64 `json:"result,omitempty"`
	// SameTop is the share of tokens after which the same token is the likeliest, of
	// language models.
	SameTop float64 `json:"sameTop,omitempty"`
	// Drop is what is lost: of the share that is right, the share of rows whose
	// highest score is another, the difference, or by which part the perplexity rises.
	Drop float64 `json:"drop"`
}

// lost says what Drop is.
func (a *Accuracy) lost() string {
	switch a.Measure {
	case Labels:
		return "its accuracy drops by " + Percent(a.Drop)
	case Top1:
		if a.SameTop > 0 {
			return "another next token is the likeliest for " + Percent(a.Drop) + " of the tokens"
		}
		return "it answers otherwise for " + Percent(a.Drop) + " of the rows"
	case Perplexity:
		return "its perplexity rises by " + Percent(a.Drop)
	}
	return "its outputs differ by " + Percent(a.Drop)
}

// Answers are the outputs of a model for each sample, in the order of the model's.
type Answers [][]Tensor

// Compare measures the accuracy of the result's answers. Labels has one for each
// sample, or is nil.
func Compare(original, result Answers, labels []int, measure Measure) (Accuracy, error) {
	if len(original) != len(result) || len(original) == 0 {
		return Accuracy{}, fmt.Errorf("the original gave %d answers, the result %d", len(original), len(result))
	}
	scores := original.scores() && result.scores()
	if measure == Auto {
		switch {
		case labels != nil && scores:
			measure = Labels
		case scores:
			measure = Top1
		default:
			measure = Difference
		}
	}
	switch {
	case measure == Labels && labels == nil:
		return Accuracy{}, fmt.Errorf("there are no labels: add %s to the data, or measure otherwise", LabelsFile)
	case measure != Difference && !scores:
		return Accuracy{}, errors.New("the model's outputs are not scores of classes, which one output of floating-point numbers in rows is: measure the difference")
	case measure == Labels:
		return rightOf(original, result, labels)
	case measure == Top1:
		return sameTop(original, result), nil
	}
	return Accuracy{Measure: Difference, Inputs: len(original), Drop: difference(original, result)}, nil
}

// scores reports whether each answer is one output of rows of scores.
func (a Answers) scores() bool {
	return !slices.ContainsFunc(a, func(outputs []Tensor) bool {
		if len(outputs) != 1 {
			return true
		}
		o := &outputs[0]
		return len(o.Shape) != 2 || o.Shape[0] < 1 || o.Shape[1] < 2 || o.Type != tensor.FP32 && o.Type != tensor.FP64
	})
}

// tops are the classes with the highest score, of all rows.
func tops(outputs []Tensor) []int {
	o := &outputs[0]
	values := numbers(o)
	classes := int(o.Shape[1])
	var best []int
	for row := 0; row+classes <= len(values); row += classes {
		top := 0
		for c, v := range values[row:][:classes] {
			if v > values[row+top] || math.IsNaN(values[row+top]) && !math.IsNaN(v) {
				top = c
			}
		}
		if math.IsNaN(values[row+top]) {
			top = -1 // a row of no numbers
		}
		best = append(best, top)
	}
	return best
}

func sameTop(original, result Answers) Accuracy {
	a := Accuracy{Measure: Top1}
	others := 0
	for i := range original {
		was, is := tops(original[i]), tops(result[i])
		for r := range was {
			a.Inputs++
			if r >= len(is) || was[r] != is[r] {
				others++
			}
		}
	}
	a.Drop = float64(others) / float64(a.Inputs)
	return a
}

func rightOf(original, result Answers, labels []int) (Accuracy, error) {
	a := Accuracy{Measure: Labels, Inputs: len(original)}
	right := [2]int{}
	for i := range original {
		for j, answers := range [][]Tensor{original[i], result[i]} {
			best := tops(answers)
			if len(best) != 1 {
				return a, fmt.Errorf("a row of data has %d rows of scores: labels say nothing of them, measure otherwise", len(best))
			}
			if classes := answers[0].Shape[1]; int64(labels[i]) >= classes {
				return a, fmt.Errorf("%s names the class %d, but the model's classes are 0 to %d: number them as its scores, from 0", LabelsFile, labels[i], classes-1)
			}
			if best[0] == labels[i] {
				right[j]++
			}
		}
	}
	a.Original, a.Result = float64(right[0])/float64(a.Inputs), float64(right[1])/float64(a.Inputs)
	a.Drop = max(0, a.Original-a.Result)
	return a, nil
}

// difference is the greatest over the outputs of the length of all differences as a
// vector, in parts of the length of what the original gave. Of outputs that are no
// floating-point numbers it is the share of those that differ.
func difference(original, result Answers) float64 {
	most := 0.0
	for o := range original[0] {
		apart, whole := 0.0, 0.0
		for i := range original {
			was := &original[i][o]
			if o >= len(result[i]) || !slices.Equal(was.Shape, result[i][o].Shape) || was.Type != result[i][o].Type || len(was.Data) != len(result[i][o].Data) {
				return 1
			}
			d, w := apartOf(was, &result[i][o])
			apart, whole = apart+d, whole+w
		}
		switch {
		case apart == 0:
		case whole == 0 || math.IsNaN(apart) || math.IsInf(apart, 0):
			return 1
		case floats(original[0][o].Type):
			most = max(most, math.Sqrt(apart/whole))
		default:
			most = max(most, apart/whole)
		}
	}
	return most
}

func floats(t tensor.DataType) bool {
	return t == tensor.FP32 || t == tensor.FP64
}

func apartOf(was, is *Tensor) (apart, whole float64) {
	if !floats(was.Type) {
		if bytes.Equal(was.Data, is.Data) {
			return 0, float64(len(was.Data))
		}
		size := max(1, was.Type.Size())
		for at := 0; at+size <= len(was.Data); at += size {
			if !bytes.Equal(was.Data[at:][:size], is.Data[at:][:size]) {
				apart += float64(size)
			}
		}
		return apart, float64(len(was.Data))
	}
	x, y := numbers(was), numbers(is)
	for i := range x {
		if x[i] == y[i] || math.IsNaN(x[i]) && math.IsNaN(y[i]) {
			y[i] = x[i]
		} else {
			apart += (x[i] - y[i]) * (x[i] - y[i])
		}
		if !math.IsNaN(x[i]) && !math.IsInf(x[i], 0) {
			whole += x[i] * x[i]
		}
	}
	return apart, whole
}

// numbers reads floating-point numbers.
func numbers(t *Tensor) []float64 {
	var values []float64
	switch t.Type {
	case tensor.FP32:
		for at := 0; at+4 <= len(t.Data); at += 4 {
			values = append(values, float64(math.Float32frombits(binary.LittleEndian.Uint32(t.Data[at:]))))
		}
	case tensor.FP64:
		for at := 0; at+8 <= len(t.Data); at += 8 {
			values = append(values, math.Float64frombits(binary.LittleEndian.Uint64(t.Data[at:])))
		}
	}
	return values
}
