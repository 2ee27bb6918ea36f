package optimize

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestParsePercent(t *testing.T) {
	for text, want := range map[string]float64{"0.5%": 0.005, "0%": 0, "100%": 1, "2 %": 0.02} {
		if got, err := ParsePercent(text); err != nil || math.Abs(got-want) > 1e-12 {
			t.Errorf("%q: got %g, %v, want %g", text, got, err, want)
		}
	}
	for _, text := range []string{"", "%", "0.5", "-1%", "101%", "NaN%", "half", "5%%"} {
		if got, err := ParsePercent(text); err == nil || !strings.Contains(err.Error(), "such as 0.5%") {
			t.Errorf("%q: got %g, %v, want a refusal", text, got, err)
		}
	}
}

func TestPercent(t *testing.T) {
	for share, want := range map[float64]string{0: "0 %", 0.005: "0.5 %", 1: "100 %", 0.0833333: "8.333 %", 91.83352: "9183.352 %", 0.1: "10 %"} {
		if got := Percent(share); got != want {
			t.Errorf("%g: got %q, want %q", share, got, want)
		}
	}
}

func TestJudge(t *testing.T) {
	const ms = time.Millisecond
	speed := func(originalRun, resultRun, originalLoad, resultLoad time.Duration) Speed {
		return Speed{OriginalRun: originalRun, ResultRun: resultRun, OriginalLoad: originalLoad, ResultLoad: resultLoad}
	}
	for name, test := range map[string]struct {
		method Method
		speed  Speed
		drop   float64
		want   []string // of the refusal; none: it passes
	}{
		"faster and as good":          {Static, speed(10*ms, 5*ms, ms, ms), 0.005, nil},
		"too great a drop":            {Static, speed(10*ms, 5*ms, ms, ms), 0.006, []string{"drops by 0.6 %, more than the 0.5 %"}},
		"not a number":                {Static, speed(10*ms, 5*ms, ms, ms), math.NaN(), []string{"more than the 0.5 %"}},
		"not faster":                  {Dynamic, speed(10*ms, 9500*time.Microsecond, ms, ms/9), 0, []string{"does not run faster by a tenth"}},
		"neither":                     {Static, speed(10*ms, 11*ms, ms, ms), 1, []string{"drops by 100 %", ", and it does not run faster"}},
		"a graph loads faster":        {Graph, speed(10*ms, 10*ms, 10*ms, 5*ms), 0, nil},
		"a graph runs faster":         {Graph, speed(10*ms, 8*ms, 10*ms, 12*ms), 0, nil},
		"a graph gains nothing":       {Graph, speed(10*ms, 10*ms, 10*ms, 10*ms), 0, []string{"neither runs nor loads faster"}},
		"a graph loads, runs slower":  {Graph, speed(10*ms, 12*ms, 10*ms, 5*ms), 0, []string{"loads faster, but runs slower"}},
		"a result that was never run": {Static, Speed{}, 0, []string{"does not run faster"}},
		"smaller and as fast":         {Quantize, speed(10*ms, 10*ms, 0, 0), 0, nil},
		"smaller and slower":          {Quantize, speed(10*ms, 12*ms, 0, 0), 0, []string{"smaller, but runs slower by a tenth"}},
	} {
		r := &Report{Method: test.method, MaxDrop: 0.005, Speed: test.speed, Accuracy: Accuracy{Measure: Labels, Drop: test.drop}}
		r.Original.SizeBytes, r.Result.SizeBytes = 100, 50
		got := r.Judge()
		if len(test.want) == 0 && got != "" {
			t.Errorf("%s: refused: %s", name, got)
		}
		for _, w := range test.want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: got %q, want %q", name, got, w)
			}
		}
	}
}

func TestJudgeSize(t *testing.T) {
	r := &Report{Method: Quantize, Speed: Speed{OriginalRun: 100, ResultRun: 95}, Original: File{SizeBytes: 100}, Result: File{SizeBytes: 95}}
	if got := r.Judge(); got != "it is neither faster nor smaller by a tenth" {
		t.Errorf("got %q", got)
	}
	r.Speed.ResultRun = 80
	if got := r.Judge(); got != "" {
		t.Errorf("faster: got %q", got)
	}
}

func TestMaxDrop(t *testing.T) {
	for _, test := range []struct {
		measure Measure
		method  Method
		want    float64
	}{{Labels, Static, 0.005}, {Top1, Dynamic, 0.005}, {Perplexity, Quantize, 0.05}, {Top1, Quantize, 0.1}} {
		if got := test.measure.MaxDrop(test.method); got != test.want {
			t.Errorf("%s of %s: got %g, want %g", test.measure, test.method, got, test.want)
		}
	}
}
