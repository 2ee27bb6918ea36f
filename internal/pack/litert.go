package pack

import "oscine.dev/oscine/internal/serve/channel"

// litertRecipe is the engine LiteRT for TensorFlow Lite's format.
func litertRecipe() recipe {
	return recipe{
		name: "litert",
		manifest: Manifest{
			Name: "litert", Version: "0-" + revision, Engines: []string{"litert"}, Entrypoint: []string{"/usr/bin/oscine-engine", "litert"},
			Formats:  []Format{tfliteFormat()},
			Platform: "tensorflow_lite", Protocols: channel.Versions(), MemoryBytes: 24 << 20,
		},
		wheel: &wheel{
			name: "ai-edge-litert", spdx: "Apache-2.0", licences: []string{"ai_edge_litert-2.3.0.dist-info/licenses/LICENSE"},
			libraries: func(string) map[string]string {
				return map[string]string{"ai_edge_litert/libLiteRt.so": "libLiteRt.so"}
			},
		},
	}
}

// tfliteFormat is a FlatBuffer whose file identifier is TFL3.
func tfliteFormat() Format {
	return Format{Name: "tflite", Suffixes: []string{".tflite"}, Magic: []Magic{{Offset: 4, Hex: "54464c33"}}}
}
