package trial

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

// gave is a candidate that answered with these numbers after the given times.
func gave(name string, one, eight time.Duration, numbers ...float32) Candidate {
	var data []byte
	for _, n := range numbers {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(n))
	}
	shape := tensor.Shape{1, int64(len(numbers))}
	spec := func(name string) []tensor.Spec {
		return []tensor.Spec{{Name: name, Type: tensor.FP32, Shape: shape}}
	}
	return Candidate{Name: name, Result: &Result{
		Metadata: channel.Metadata{Engine: name + " 1", Inputs: spec("x"), Outputs: spec("y")},
		Latency:  [2]time.Duration{one, eight}, Outputs: []Output{{"y", tensor.FP32, shape, data}},
	}}
}

func renamed(c Candidate) Candidate {
	c.Result.Metadata.Inputs[0].Name = "other"
	return c
}

func anyRank(c Candidate) Candidate {
	c.Result.Metadata.Inputs[0] = tensor.Spec{Name: "x", Type: tensor.FP32, AnyRank: true}
	return c
}

func scalar(c Candidate) Candidate {
	c.Result.Metadata.Inputs[0].Shape = nil
	return c
}

func unmeasured(c Candidate) Candidate {
	c.Result.Latency, c.Result.Outputs, c.Result.Problem = [2]time.Duration{}, nil, "it wants a picture"
	return c
}

func TestChoose(t *testing.T) {
	const ms = time.Millisecond
	refused := Candidate{Name: "r", Err: &channel.ModelError{Text: "no such operator"}}
	crashed := Candidate{Name: "k", Err: errors.New("the worker ended")}
	for name, test := range map[string]struct {
		candidates []Candidate
		chosen     int
		reasons    []string
	}{
		"the fastest":                {[]Candidate{gave("a", 3*ms, 9*ms, 1), gave("b", 2*ms, 8*ms, 1.0001)}, 1, []string{"slower than b", "the fastest"}},
		"not clearly faster":         {[]Candidate{gave("a", 100*ms, 0, 1), gave("b", 95*ms, 0, 1)}, 0, []string{"none is faster by a tenth", "faster than a, but not by a tenth"}},
		"the first is the fastest":   {[]Candidate{gave("a", 1*ms, 0, 1), gave("b", 2*ms, 0, 1)}, 0, []string{"the fastest", "slower than a"}},
		"large batches decide":       {[]Candidate{gave("a", 10*ms, 80*ms, 1), gave("b", 11*ms, 20*ms, 1)}, 1, []string{"slower than b", "the fastest"}},
		"wrong and fast":             {[]Candidate{gave("a", 9*ms, 0, 1, 2), gave("b", 1*ms, 0, 1, 2.1)}, 0, []string{"the only one", "differ by 0.05"}},
		"large numbers":              {[]Candidate{gave("a", 9*ms, 0, 1000), gave("b", 1*ms, 0, 1000.5)}, 1, []string{"slower than b", "the fastest"}},
		"zeros first":                {[]Candidate{gave("a", 1*ms, 0, 0, 0), gave("b", 9*ms, 0, 1, 2)}, 1, []string{"answers zeros", "the only one"}},
		"zeros later":                {[]Candidate{gave("a", 9*ms, 0, 1, 2), gave("b", 1*ms, 0, 0, 0)}, 0, []string{"the only one", "answers zeros"}},
		"zeros everywhere":           {[]Candidate{gave("a", 9*ms, 0, 0), gave("b", 1*ms, 0, 0)}, 1, []string{"slower than b", "the fastest"}},
		"NaN":                        {[]Candidate{gave("a", 9*ms, 0, 1), gave("b", 1*ms, 0, float32(math.NaN()))}, 0, []string{"the only one", "differ by NaN"}},
		"one refuses":                {[]Candidate{refused, gave("b", 1*ms, 0, 1)}, 1, []string{"refused: no such operator", "the only one"}},
		"one crashes":                {[]Candidate{gave("a", 1*ms, 0, 1), crashed}, 0, []string{"the only one", "failed: the worker ended"}},
		"all refuse":                 {[]Candidate{refused, crashed}, -1, []string{"refused", "failed"}},
		"other names":                {[]Candidate{gave("a", 9*ms, 0, 1), renamed(gave("b", 1*ms, 0, 1))}, 0, []string{"the only one", "differently from a 1"}},
		"any rank, and a scalar":     {[]Candidate{anyRank(gave("a", 9*ms, 0, 1)), scalar(gave("b", 1*ms, 0, 1))}, 0, []string{"the only one", "differently from a 1"}},
		"other shapes":               {[]Candidate{gave("a", 9*ms, 0, 1), gave("b", 1*ms, 0, 1, 1)}, 0, []string{"the only one", "differently"}},
		"nothing could be measured":  {[]Candidate{unmeasured(gave("a", 9*ms, 0, 1)), unmeasured(gave("b", 1*ms, 0, 1))}, 0, []string{"it wants a picture", "could not be compared"}},
		"only the first is measured": {[]Candidate{gave("a", 9*ms, 0, 1), unmeasured(gave("b", 1*ms, 0, 1))}, 0, []string{"the only one", "could not be compared"}},
	} {
		chosen, verdicts := Choose(test.candidates)
		if chosen != test.chosen {
			t.Errorf("%s: chose %d, want %d: %+v", name, chosen, test.chosen, verdicts)
		}
		for i, v := range verdicts {
			if v.Failed != strings.HasPrefix(test.reasons[i], "failed") || !strings.Contains(v.Reason, test.reasons[i]) {
				t.Errorf("%s: candidate %d: %+v, want %s", name, i, v, test.reasons[i])
			}
		}
	}
}

// All engines get the same inputs.
func TestInputs(t *testing.T) {
	meta := channel.Metadata{Inputs: []tensor.Spec{{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{-1, -1, 3}}, {Name: "n", Type: tensor.Int64, Shape: tensor.Shape{}}}}
	shapes, sizes := shapesFor(&meta, 8, 64)
	if !slices.Equal(shapes[0], tensor.Shape{8, 64, 3}) || !slices.Equal(sizes, []int{4 * 8 * 64 * 3, 8}) {
		t.Errorf("got %v, %v", shapes, sizes)
	}
	a, b := make([]byte, 1024), make([]byte, 1024)
	fill(&meta.Inputs[0], a)
	fill(&meta.Inputs[0], b)
	if !slices.Equal(a, b) {
		t.Error("two engines get different numbers")
	}
	for at := 0; at < len(a); at += 4 {
		if f := math.Float32frombits(binary.LittleEndian.Uint32(a[at:])); f < 0 || f >= 1 {
			t.Fatalf("number %d is %g", at/4, f)
		}
	}
	fill(&meta.Inputs[1], b[:8])
	if binary.LittleEndian.Uint64(b) != 1 {
		t.Errorf("an index is %d, want 1", binary.LittleEndian.Uint64(b))
	}
}
