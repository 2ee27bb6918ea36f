package pack

import (
	"oscine.dev/oscine/internal/serve/channel"
)

// onnxruntimeRecipe is the engine ONNX Runtime, from its pinned wheel and the
// pinned Debian libraries that it needs.
func onnxruntimeRecipe() recipe {
	return recipe{
		name: "onnxruntime",
		manifest: Manifest{
			Name: "onnxruntime", Version: "0-" + revision, Engines: []string{"onnxruntime"}, Entrypoint: []string{"/usr/bin/oscine-engine", "onnxruntime"},
			Formats:  []Format{onnxFormat()},
			Platform: "onnxruntime_onnx", Protocols: channel.Versions(), MemoryBytes: 48 << 20,
		},
		wheel: &wheel{
			name: "onnxruntime", spdx: "MIT", licences: []string{"onnxruntime/LICENSE", "onnxruntime/ThirdPartyNotices.txt"},
			libraries: func(string) map[string]string {
				return map[string]string{"onnxruntime/capi/libonnxruntime.so.1.31.1": "libonnxruntime.so.1"}
			},
		},
	}
}
