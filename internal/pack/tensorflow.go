package pack

import "oscine.dev/oscine/internal/serve/channel"

// tensorflowRecipe is the engine TensorFlow on CPUs.
func tensorflowRecipe() recipe {
	return recipe{
		name: "tensorflow",
		manifest: Manifest{
			Name: "tensorflow", Version: "0-" + revision, Engines: []string{"tensorflow"}, Entrypoint: []string{"/usr/bin/oscine-engine", "tensorflow"},
			Formats:  []Format{savedModelFormat()},
			Platform: "tensorflow_savedmodel", Protocols: channel.Versions(), MemoryBytes: 320 << 20,
		},
		wheel: &wheel{
			name: "tensorflow-cpu", arm64: "tensorflow", spdx: "Apache-2.0", licences: []string{"tensorflow/include/LICENSE", "tensorflow/THIRD_PARTY_NOTICES.txt"},
			libraries: func(string) map[string]string {
				return map[string]string{
					"tensorflow/libtensorflow_cc.so.2":        "libtensorflow_cc.so.2",
					"tensorflow/libtensorflow_framework.so.2": "libtensorflow_framework.so.2",
				}
			},
		},
	}
}
