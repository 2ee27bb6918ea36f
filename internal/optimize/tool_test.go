package optimize

import (
	"strings"
	"testing"
)

func TestFor(t *testing.T) {
	for name, test := range map[string]struct {
		files      []string
		to         string
		pack, file string
		problem    string
	}{
		"ONNX":           {[]string{"a.onnx", "a.data"}, "", PackONNX, "a.onnx", ""},
		"in capitals":    {[]string{"A.GGUF"}, "", PackGGUF, "A.GGUF", ""},
		"IR":             {[]string{"a.xml", "a.bin"}, "", PackOpenVINO, "a.xml", ""},
		"ONNX to IR":     {[]string{"a.onnx"}, "openvino", PackOpenVINO, "a.onnx", ""},
		"GGUF to IR":     {[]string{"a.gguf"}, "openvino", "", "", "give a file that ends in .onnx or .xml"},
		"to what":        {[]string{"a.onnx"}, "tensorrt", "", "", `--to "tensorrt": must be openvino`},
		"several":        {[]string{"a.gguf", "b.gguf"}, "", "", "", "m holds 2 models in GGUF: name the file of one"},
		"without a pack": {[]string{"a.pte"}, "", "", "", "ExecuTorch's export, for which there is no pack yet"},
		"no model":       {[]string{"a.txt"}, "", "", "", "m is in no format that is optimised: give a file that ends in .onnx"},
	} {
		tool, file, err := For("m", test.files, test.to)
		switch {
		case test.problem != "":
			if err == nil || !strings.Contains(err.Error(), test.problem) {
				t.Errorf("%s: got %v, want %q", name, err, test.problem)
			}
		case err != nil || tool.Pack != test.pack || file != test.file:
			t.Errorf("%s: got %+v, %s, %v", name, tool, file, err)
		}
	}
}

func TestPlan(t *testing.T) {
	onnx, gguf, openvino := onnx(), gguf(), openvino()
	for name, test := range map[string]struct {
		tool    *Tool
		flags   Flags
		measure Measure
		given   []string
		method  Method
		ending  string
		problem string
	}{
		"the graph":            {&onnx, Flags{}, Auto, nil, Graph, ".optimized.onnx", ""},
		"dynamic":              {&onnx, Flags{Int8: Int8Auto}, Auto, []string{"int8"}, Dynamic, ".int8.onnx", ""},
		"static":               {&onnx, Flags{Int8: Int8Auto, Data: true}, Labels, []string{"int8"}, Static, ".int8.onnx", ""},
		"static without data":  {&onnx, Flags{Int8: "static"}, Auto, []string{"int8"}, "", "", "give a folder with --calibration"},
		"another's flag":       {&onnx, Flags{Type: "Q4_0"}, Auto, []string{"type"}, "", "", "--type is not for models in ONNX"},
		"the usual type":       {&gguf, Flags{}, Auto, nil, Quantize, "-Q4_K_M.gguf", ""},
		"small letters":        {&gguf, Flags{Type: "q8_0"}, Perplexity, []string{"type"}, Quantize, "-Q8_0.gguf", ""},
		"no type":              {&gguf, Flags{Type: "Q9"}, Auto, []string{"type"}, "", "", `--type "Q9": must be one of`},
		"matrix without text":  {&gguf, Flags{Imatrix: true}, Auto, []string{"imatrix"}, "", "", "--calibration"},
		"needs a matrix":       {&gguf, Flags{Type: "IQ1_S"}, Auto, []string{"type"}, "", "", "--calibration"},
		"measured otherwise":   {&gguf, Flags{}, Labels, nil, "", "", "--accuracy labels is not for models in GGUF: use auto, perplexity or top-1"},
		"ONNX to IR":           {&openvino, Flags{Converts: true}, Auto, nil, Graph, ".xml", ""},
		"an IR as it is":       {&openvino, Flags{}, Auto, nil, "", "", "give --int8"},
		"weights":              {&openvino, Flags{Int8: Int8Auto}, Auto, []string{"int8"}, Weights, ".int8.xml", ""},
		"a preset":             {&openvino, Flags{Int8: Int8Auto, Data: true, Preset: "transformer"}, Auto, []string{"int8", "preset"}, Static, ".int8.xml", ""},
		"no preset":            {&openvino, Flags{Int8: Int8Auto, Data: true, Preset: "best"}, Auto, nil, "", "", `--preset "best": must be mixed, performance or transformer`},
		"a preset for weights": {&openvino, Flags{Int8: "weights", Preset: "mixed"}, Auto, nil, "", "", "--preset is for --int8=static"},
		"IR without data":      {&openvino, Flags{Int8: "static"}, Auto, nil, "", "", "use --int8=weights"},
		"no way to eight bits": {&openvino, Flags{Int8: "dynamic"}, Auto, nil, "", "", "must be static or weights"},
		"perplexity of others": {&onnx, Flags{}, Perplexity, nil, "", "", "use auto, labels, top-1 or difference"},
	} {
		plan, err := test.tool.Plan(test.flags, test.measure, test.given)
		switch {
		case test.problem != "":
			if err == nil || !strings.Contains(err.Error(), test.problem) {
				t.Errorf("%s: got %v, want %q", name, err, test.problem)
			}
		case err != nil || plan.Method != test.method || plan.Ending != test.ending:
			t.Errorf("%s: got %+v, %v", name, plan, err)
		}
	}
	if plan, err := gguf.Plan(Flags{Type: "IQ2_XS", Data: true}, Auto, nil); err != nil || plan.Options[OptionImatrix] != "true" {
		t.Errorf("a type that needs a matrix: got %+v, %v", plan, err)
	}
}
