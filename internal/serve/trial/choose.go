package trial

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

// Candidate is an engine that may run the model, with what its trial gave.
type Candidate struct {
	Name   string
	Result *Result
	Err    error // of Run
}

// Verdict says what came out for a candidate.
type Verdict struct {
	// Difference is the greatest of the outputs from the first sound candidate's,
	// in parts of the output's greatest magnitude, or of 1 where that is less; NaN
	// where they were not compared.
	Difference float64
	Reason     string // why it is chosen or not
	Failed     bool   // it failed of something that may not happen again
}

// Spread is by how much outputs of sound engines differ, in parts of the greatest
// magnitude of an output.
const Spread = 2e-3

// clearly is by which part of its time a candidate has to be faster than one that
// the rules put before it.
const clearly = 0.1

// Choose picks the candidate to serve with, -1 for none: of those whose outputs
// agree with the first one's, the fastest; the first where none is clearly faster.
// Candidates are in the order in which rules prefer them. It returns a verdict for
// each.
func Choose(candidates []Candidate) (chosen int, verdicts []Verdict) {
	verdicts = make([]Verdict, len(candidates))
	sound := func(i int) bool { return candidates[i].Err == nil }
	reference := first(len(candidates), func(i int) bool { return sound(i) && (!candidates[i].Result.zero() || !othersAnswer(candidates, i)) })
	chosen = reference
	for i := range candidates {
		v, c := &verdicts[i], &candidates[i]
		v.Difference = math.NaN()
		switch {
		case !sound(i):
			v.Reason = "refused: " + c.Err.Error()
			if !errors.As(c.Err, new(*channel.ModelError)) {
				v.Failed, v.Reason = true, "failed: "+c.Err.Error()
			}
		case i == reference:
			v.Difference = 0
		case c.Result.zero() && othersAnswer(candidates, i):
			v.Reason = "answers zeros where another engine does not"
		default:
			v.Difference, v.Reason = compare(candidates[reference].Result, c.Result)
		}
		if v.Reason == "" && i != reference && faster(c.Result, candidates[chosen].Result, chosen == reference) {
			chosen = i
		}
	}
	if chosen < 0 {
		return -1, verdicts
	}
	explain(candidates, verdicts, chosen)
	return chosen, verdicts
}

// explain fills in why the chosen one is, and those that are sound are not.
func explain(candidates []Candidate, verdicts []Verdict, chosen int) {
	alone, anyFaster := true, false
	for i := range verdicts {
		v := &verdicts[i]
		if i == chosen || v.Reason != "" {
			continue
		}
		alone = false
		v.Reason = "slower than " + candidates[chosen].Name
		if i > chosen && faster(candidates[i].Result, candidates[chosen].Result, false) {
			v.Reason, anyFaster = "faster than "+candidates[chosen].Name+", but not by a tenth", true
		}
	}
	v := &verdicts[chosen]
	switch problem := candidates[chosen].Result.Problem; {
	case problem != "":
		v.Reason = "the first by the rules; it could not be measured: " + problem
	case alone && len(candidates) > 1:
		v.Reason = "the only one that can be taken"
	case anyFaster:
		v.Reason = "the first by the rules, none is faster by a tenth"
	default:
		v.Reason = "the fastest"
	}
}

func first(n int, ok func(int) bool) int {
	for i := range n {
		if ok(i) {
			return i
		}
	}
	return -1
}

// othersAnswer reports whether a candidate but i answers anything but zeros.
func othersAnswer(candidates []Candidate, i int) bool {
	for j := range candidates {
		if r := candidates[j].Result; j != i && candidates[j].Err == nil && len(r.Outputs) > 0 && !r.zero() {
			return true
		}
	}
	return false
}

// zero reports whether it answered nothing but zeros.
func (r *Result) zero() bool {
	return len(r.Outputs) > 0 && !slices.ContainsFunc(r.Outputs, func(o Output) bool {
		return len(bytes.Trim(o.Data, "\x00")) > 0
	})
}

// score is smaller for the faster one, over all batches that both ran.
func score(r, other *Result) float64 {
	s := 1.0
	for i, l := range r.Latency {
		if l > 0 && other.Latency[i] > 0 {
			s *= float64(l)
		}
	}
	return s
}

// faster reports whether r is faster than other, and where clear is true, clearly.
func faster(r, other *Result, clear bool) bool {
	if r.Latency[0] == 0 || other.Latency[0] == 0 {
		return false
	}
	limit := 1.0
	if clear {
		limit = 1 - clearly
		if r.Latency[1] > 0 && other.Latency[1] > 0 {
			limit *= limit // the score is a product of both
		}
	}
	return score(r, other) < limit*score(other, r)
}

// notCompared says that there are no outputs of one of two engines.
const notCompared = "its outputs could not be compared"

// compare returns by how much other differs from the reference, and why it cannot
// take its place; "" where it can.
func compare(reference, other *Result) (difference float64, reason string) {
	if !sameInputs(reference.Metadata.Inputs, other.Metadata.Inputs) || len(reference.Metadata.Outputs) != len(other.Metadata.Outputs) {
		return math.NaN(), "names inputs or outputs differently from " + reference.Metadata.Engine
	}
	for _, spec := range reference.Metadata.Outputs {
		if !slices.ContainsFunc(other.Metadata.Outputs, func(s tensor.Spec) bool { return s.Name == spec.Name && s.Type == spec.Type }) {
			return math.NaN(), fmt.Sprintf("has no output %q of %s", spec.Name, spec.Type)
		}
	}
	if len(reference.Outputs) == 0 || len(other.Outputs) == 0 {
		return math.NaN(), notCompared
	}
	for _, o := range reference.Outputs {
		i := slices.IndexFunc(other.Outputs, func(p Output) bool { return p.Name == o.Name })
		if !slices.Equal(o.Shape, other.Outputs[i].Shape) {
			return math.NaN(), fmt.Sprintf("its output %q is %s instead of %s", o.Name, other.Outputs[i].Shape, o.Shape)
		}
		difference = max(difference, distance(o, other.Outputs[i]))
	}
	if !(difference <= Spread) {
		return difference, fmt.Sprintf("its outputs differ by %.2g, engines that agree by less than %g", difference, Spread)
	}
	return difference, ""
}

func sameInputs(a, b []tensor.Spec) bool {
	sorted := func(list []tensor.Spec) []tensor.Spec {
		return slices.SortedFunc(slices.Values(list), func(x, y tensor.Spec) int { return cmp.Compare(x.Name, y.Name) })
	}
	return slices.EqualFunc(sorted(a), sorted(b), tensor.Spec.Equal)
}

// distance is the greatest difference of two tensors of one shape, in parts of the
// first's greatest magnitude. Those that are no FP32 or FP64 are equal or apart.
func distance(a, b Output) float64 {
	size, number := 4, func(data []byte) float64 { return float64(math.Float32frombits(binary.LittleEndian.Uint32(data))) }
	switch a.Type {
	case tensor.FP32:
	case tensor.FP64:
		size, number = 8, func(data []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(data)) }
	default:
		if bytes.Equal(a.Data, b.Data) {
			return 0
		}
		return 1
	}
	most, scale := 0.0, 1.0
	for at := 0; at+size <= min(len(a.Data), len(b.Data)); at += size {
		x, y := number(a.Data[at:]), number(b.Data[at:])
		if x == y || math.IsNaN(x) && math.IsNaN(y) {
			continue
		}
		most, scale = math.Max(most, math.Abs(x-y)), math.Max(scale, math.Abs(x))
	}
	if len(a.Data) != len(b.Data) {
		return 1
	}
	return most / scale
}
