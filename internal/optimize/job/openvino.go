package job

import _ "embed" // of openvino.py

//go:embed openvino.py
var openvinoScript string

// openvino is NNCF. Where sums of eight-bit products overflow, weights keep a bit free.
func openvino() tool {
	return &python{engine: "openvino", script: openvinoScript, hints: func(c cpu) map[string]any {
		return map[string]any{"overflowFix": c.saturates()}
	}}
}
