package optimize

import (
	"errors"
	"fmt"
	"slices"
)

// OptionPreset is NNCF's: by what it decides which operators to quantise.
const OptionPreset = "preset"

// Presets are those of NNCF, the usual one first, and its way with transformers.
func Presets() []string { return []string{"mixed", "performance", "transformer"} }

func openvino() Tool {
	return Tool{
		Pack: PackOpenVINO, Name: "NNCF", Format: "OpenVINO's IR", To: "openvino", Suffixes: []string{".xml"}, From: []string{".onnx"}, Result: ".xml",
		Flags: []string{"int8", "preset"}, Measures: []Measure{Labels, Top1, Difference}, plan: planOpenVINO,
	}
}

func planOpenVINO(f Flags) (Plan, error) {
	preset := f.Preset
	switch {
	case preset == "":
		preset = Presets()[0]
	case !slices.Contains(Presets(), preset):
		return Plan{}, fmt.Errorf("--preset %q: must be %s", preset, list(Presets(), "or"))
	case f.Int8 != "static" && (f.Int8 != Int8Auto || !f.Data):
		return Plan{}, errors.New("--preset is for --int8=static, which quantises activations too: give data with --calibration")
	}
	switch {
	case f.Int8 == "" && f.Converts:
		return Plan{Method: Graph, Ending: ".xml"}, nil
	case f.Int8 == "":
		return Plan{}, errors.New("OpenVINO optimises the graph at each load: give --int8")
	case f.Int8 == "weights", f.Int8 == Int8Auto && !f.Data:
		return Plan{Method: Weights, Ending: ".int8.xml"}, nil
	case f.Int8 != "static" && f.Int8 != Int8Auto:
		return Plan{}, fmt.Errorf("--int8=%s: must be static or weights", f.Int8)
	case !f.Data:
		return Plan{}, errors.New("--int8=static needs data to find the ranges of activations: give a folder with --calibration, or use --int8=weights")
	}
	return Plan{Method: Static, Ending: ".int8.xml", Options: map[string]string{OptionPreset: preset}}, nil
}
