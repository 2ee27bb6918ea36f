package ensemble

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type tensors = map[string]string

func TestArrange(t *testing.T) {
	chain := []Step{
		{Model: "last", Inputs: tensors{"a": "mid", "b": "raw"}, Outputs: tensors{"y": "out", "z": "aside"}},
		{Model: "first", Inputs: tensors{"x": "raw"}, Outputs: tensors{"y": "mid"}},
	}
	for name, test := range map[string]struct {
		steps  []Step
		wanted []string
		want   Plan
		err    string
	}{
		"a chain":           {chain, nil, Plan{[]int{1, 0}, []string{"raw"}, []string{"aside", "out"}}, ""},
		"wanted":            {chain, []string{"out", "mid"}, Plan{[]int{1, 0}, []string{"raw"}, []string{"out", "mid"}}, ""},
		"wanted from none":  {chain, []string{"raw"}, Plan{}, `output "raw" is no step's output`},
		"wanted twice":      {chain, []string{"out", "out"}, Plan{}, "given twice"},
		"none":              {nil, nil, Plan{}, "1 to 64 steps"},
		"without a model":   {[]Step{{Inputs: tensors{"a": "b"}, Outputs: tensors{"c": "d"}}}, nil, Plan{}, "step 1 names no model"},
		"without outputs":   {[]Step{{Model: "m", Inputs: tensors{"a": "b"}}}, nil, Plan{}, "step 1 (m) needs at least one input"},
		"an empty name":     {[]Step{{Model: "m", Inputs: tensors{"a": ""}, Outputs: tensors{"c": "d"}}}, nil, Plan{}, "both names"},
		"two of one output": {append(chain[1:2:2], chain[1]), nil, Plan{}, `step 2 (first): tensor "mid" comes from step 1 (first) already`},
		"a cycle": {[]Step{
			{Model: "a", Inputs: tensors{"x": "raw", "y": "b"}, Outputs: tensors{"o": "a"}},
			{Model: "b", Inputs: tensors{"x": "a"}, Outputs: tensors{"o": "b"}},
			{Model: "c", Inputs: tensors{"x": "raw"}, Outputs: tensors{"o": "c"}},
		}, nil, Plan{}, "step 1 (a), step 2 (b): each waits"},
		"itself": {[]Step{{Model: "m", Inputs: tensors{"x": "y"}, Outputs: tensors{"y": "y"}}}, nil, Plan{}, "a cycle"},
	} {
		got, err := Arrange(test.steps, test.wanted)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: got %v, want %s", name, err, test.err)
			}
			continue
		}
		if err != nil || cmp.Diff(&test.want, got) != "" {
			t.Errorf("%s: %v\n%s", name, err, cmp.Diff(&test.want, got))
		}
	}
}
