package optimize

import (
	"errors"
	"fmt"
)

// Int8Auto is --int8 without a value.
const Int8Auto = "auto"

func onnx() Tool {
	return Tool{
		Pack: PackONNX, Name: "ONNX Runtime's tools", Format: "ONNX", Suffixes: []string{".onnx"}, Result: ".onnx",
		Flags: []string{"int8"}, Measures: []Measure{Labels, Top1, Difference}, plan: planONNX,
	}
}

func planONNX(f Flags) (Plan, error) {
	switch {
	case f.Int8 == "":
		return Plan{Method: Graph, Ending: ".optimized.onnx"}, nil
	case f.Int8 == "dynamic", f.Int8 == Int8Auto && !f.Data:
		return Plan{Method: Dynamic, Ending: ".int8.onnx"}, nil
	case f.Int8 != "static" && f.Int8 != Int8Auto:
		return Plan{}, fmt.Errorf("--int8=%s: must be static or dynamic", f.Int8)
	case !f.Data:
		return Plan{}, errors.New("--int8=static needs data to find the ranges of activations: give a folder with --calibration, or use --int8=dynamic")
	}
	return Plan{Method: Static, Ending: ".int8.onnx"}, nil
}
