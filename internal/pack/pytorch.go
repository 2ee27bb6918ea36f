package pack

import (
	"maps"
	"slices"

	"oscine.dev/oscine/internal/serve/channel"
)

// pytorchRecipe is the engine PyTorch on CPUs, for TorchScript and for packages
// that AOTInductor has compiled.
func pytorchRecipe() recipe {
	archive := []Magic{{Hex: "504b0304"}} // a zip archive: the engine looks further
	return recipe{
		name: "pytorch",
		manifest: Manifest{
			Name: "pytorch", Version: "0-" + revision, Engines: []string{"pytorch"}, Entrypoint: []string{"/usr/bin/oscine-engine", "pytorch"},
			Formats: []Format{
				{Name: "torchscript", Suffixes: []string{".pt", ".pth", ".ts", ".jit"}, Magic: archive},
				{Name: "aotinductor", Suffixes: []string{".pt2"}, Magic: archive},
			},
			Platform: "pytorch_libtorch", Protocols: channel.Versions(), MemoryBytes: 200 << 20,
		},
		wheel: &wheel{
			name: "torch", spdx: "BSD-3-Clause",
			licences: []string{"torch-2.15.0.dist-info/licenses/LICENSE"}, others: "torch-2.15.0.dist-info/licenses/third_party",
			libraries: torchLibraries,
			// libtorch_cpu names them; without a driver they do nothing.
			with:   []*wheel{cudaLibrary("nvidia-cuda-runtime", cudaRuntime, "libcudart.so.13"), cudaLibrary("nvidia-cuda-cupti", cudaRuntime, "libcupti.so.13")},
			debian: []string{"libutil.so.1"},
			shim: &shim{
				source: "pytorch", standard: "c++20", headers: []string{"torch/include"},
				include: []string{"torch/include", "torch/include/torch/csrc/api/include"},
				link: func(arch string) []string {
					return append([]string{"libcudart.so.13", "libcupti.so.13"}, slices.Sorted(maps.Values(torchLibraries(arch)))...)
				},
				// The real one is a list of libraries, among them those for GPUs; what
				// AOTInductor compiles names it.
				empty: []string{"libtorch.so"},
			},
		},
	}
}

func torchLibraries(arch string) map[string]string {
	names := []string{"libc10.so", "libgomp.so.1", "libtorch_cpu.so"}
	if arch == "arm64" {
		names = append(names, "libarm_compute.so", "libarm_compute_graph.so",
			"libnvpl_blas_core.so.0", "libnvpl_blas_lp64_gomp.so.0", "libnvpl_lapack_core.so.0", "libnvpl_lapack_lp64_gomp.so.0")
	}
	files := map[string]string{}
	for _, name := range names {
		files["torch/lib/"+name] = name
	}
	return files
}
