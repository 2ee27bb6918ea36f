package pack

import "oscine.dev/oscine/internal/serve/channel"

// onnxFormat is a protocol buffer whose first field is its version.
func onnxFormat() Format {
	return Format{Name: "onnx", Suffixes: []string{".onnx"}, Magic: []Magic{{Hex: "08"}}}
}

// openvinoRecipe is the engine OpenVINO on CPUs, with the readers of the formats
// that it is asked for.
func openvinoRecipe() recipe {
	return recipe{
		name: "openvino",
		manifest: Manifest{
			Name: "openvino", Version: "0-" + revision, Engines: []string{"openvino"}, Entrypoint: []string{"/usr/bin/oscine-engine", "openvino"},
			Formats: []Format{
				// XML, with the weights beside it.
				{Name: "openvino-ir", Suffixes: []string{".xml"}, Magic: []Magic{{Hex: "3c"}, {Hex: "efbbbf3c"}}},
				onnxFormat(), tfliteFormat(), savedModelFormat(), frozenGraphFormat(),
			},
			Platform: "openvino", Protocols: channel.Versions(), MemoryBytes: 110 << 20,
		},
		wheel: &wheel{
			name: "openvino", spdx: "Apache-2.0",
			licences: []string{
				"openvino-2026.4.1.dist-info/licenses/LICENSE",
				"openvino-2026.4.1.dist-info/licenses/licensing/onednn_third-party-programs.txt",
				"openvino-2026.4.1.dist-info/licenses/licensing/onetbb_third-party-programs.txt",
				"openvino-2026.4.1.dist-info/licenses/licensing/runtime-third-party-programs.txt",
			},
			libraries: openvinoLibraries,
		},
	}
}

func openvinoLibraries(arch string) map[string]string {
	plugin := "libopenvino_intel_cpu_plugin.so"
	if arch == "arm64" {
		plugin = "libopenvino_arm_cpu_plugin.so"
	}
	files := map[string]string{}
	for _, name := range []string{
		"libopenvino.so.2641", "libopenvino_c.so.2641", plugin,
		"libopenvino_ir_frontend.so.2641", "libopenvino_onnx_frontend.so.2641",
		"libopenvino_tensorflow_frontend.so.2641", "libopenvino_tensorflow_lite_frontend.so.2641",
		"libtbb.so.12", "libtbbmalloc.so.2", "libhwloc.so.15",
	} {
		files["openvino/libs/"+name] = name
	}
	return files
}

// savedModelFormat is the folder of a SavedModel, known by saved_model.pb: a
// protocol buffer whose first field is its version, 1.
func savedModelFormat() Format {
	return Format{Name: "savedmodel", Suffixes: []string{".pb"}, Magic: []Magic{{Hex: "0801"}}}
}

// frozenGraphFormat is a graph of TensorFlow with its weights: a protocol buffer
// that begins with a node.
func frozenGraphFormat() Format {
	return Format{Name: "frozen-graph", Suffixes: []string{".pb"}, Magic: []Magic{{Hex: "0a"}}}
}
