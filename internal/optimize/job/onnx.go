package job

import _ "embed" // of onnx.py

//go:embed onnx.py
var onnxScript string

// onnx is ONNX Runtime's own tools.
func onnx() tool {
	return &python{engine: "onnxruntime", script: onnxScript, hints: func(c cpu) map[string]any {
		return map[string]any{"reduceRange": c.saturates(), "activation": c.activation()}
	}}
}
