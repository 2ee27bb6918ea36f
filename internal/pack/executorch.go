package pack

import "oscine.dev/oscine/internal/serve/channel"

// executorchRecipe is the engine ExecuTorch on CPUs.
func executorchRecipe() recipe {
	// Registering what they have, these libraries are loaded though nothing calls
	// them: the kernels and the delegate that programs name.
	link := []string{
		"libexecutorch.so", "libexecutorch_threadpool.so", "libexecutorch_kernels_optimized.so",
		"libexecutorch_kernels_quantized.so", "libexecutorch_backend_xnnpack.so",
	}
	return recipe{
		name: "executorch",
		manifest: Manifest{
			Name: "executorch", Version: "0-" + revision, Engines: []string{"executorch"}, Entrypoint: []string{"/usr/bin/oscine-engine", "executorch"},
			// A FlatBuffer whose file identifier is ET12.
			Formats:  []Format{{Name: "executorch", Suffixes: []string{".pte"}, Magic: []Magic{{Offset: 4, Hex: "45543132"}}}},
			Platform: "executorch_pte", Protocols: channel.Versions(), MemoryBytes: 16 << 20,
		},
		wheel: &wheel{
			name: "executorch", spdx: "BSD-3-Clause", licences: []string{"executorch-1.5.1.dist-info/licenses/LICENSE"},
			libraries: func(string) map[string]string {
				files := map[string]string{}
				for _, name := range link {
					files["executorch/lib/"+name] = name
				}
				return files
			},
			shim: &shim{
				source: "executorch", standard: "c++17", headers: []string{"executorch/include"},
				include: []string{"executorch/include", "executorch/include/executorch/runtime/core/portable_type/c10"},
				define:  []string{"C10_USING_CUSTOM_GENERATED_MACROS"}, link: func(string) []string { return link },
			},
		},
	}
}
