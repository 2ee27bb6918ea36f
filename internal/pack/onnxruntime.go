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

// onnxruntimeCUDARecipe is the same engine with the libraries that compute on
// NVIDIA's GPUs. The driver's own libraries come with the device.
func onnxruntimeCUDARecipe() recipe {
	cudnn := &wheel{
		name: "nvidia-cudnn-cu13", spdx: "LicenseRef-NVIDIA-cuDNN",
		licences: []string{"nvidia_cudnn_cu13-9.19.0.56.dist-info/licenses/License.txt"},
		libraries: func(string) map[string]string {
			files := map[string]string{}
			for _, part := range []string{"", "_adv", "_cnn", "_engines_precompiled", "_engines_runtime_compiled", "_graph", "_heuristic", "_ops"} {
				files["nvidia/cudnn/lib/libcudnn"+part+".so.9"] = "libcudnn" + part + ".so.9"
			}
			return files
		},
	}
	return recipe{
		name: "onnxruntime-cuda",
		manifest: Manifest{
			Name: "onnxruntime-cuda", Version: "0-" + revision, Engines: []string{"onnxruntime-cuda"}, Entrypoint: []string{"/usr/bin/oscine-engine", "onnxruntime-cuda"},
			Formats:  []Format{onnxFormat()},
			Platform: "onnxruntime_onnx", Protocols: channel.Versions(), MemoryBytes: 256 << 20,
			// CUDA 13 needs a driver of the branch 580 (CUDA's release notes, table 2).
			Requires: Requires{Devices: []string{"oscine.dev/gpu"}, KernelDrivers: map[string]string{"nvidia": "580"}},
		},
		wheel: &wheel{
			name: "onnxruntime-gpu", spdx: "MIT", licences: []string{"onnxruntime/LICENSE", "onnxruntime/ThirdPartyNotices.txt"},
			libraries: func(string) map[string]string {
				return map[string]string{
					"onnxruntime/capi/libonnxruntime.so.1.31.1":           "libonnxruntime.so.1",
					"onnxruntime/capi/libonnxruntime_providers_shared.so": "libonnxruntime_providers_shared.so",
					"onnxruntime/capi/libonnxruntime_providers_cuda.so":   "libonnxruntime_providers_cuda.so",
				}
			},
			with: []*wheel{
				cudaLibrary("nvidia-cublas", "13.1.0.3", "libcublas.so.13", "libcublasLt.so.13"),
				cudaLibrary("nvidia-cuda-nvrtc", "13.0.88", "libnvrtc.so.13", "libnvrtc-builtins.so.13.0"),
				cudaLibrary("nvidia-cuda-runtime", cudaRuntime, "libcudart.so.13"),
				cudaLibrary("nvidia-cufft", "12.0.0.61", "libcufft.so.12"),
				cudaLibrary("nvidia-curand", "10.4.0.35", "libcurand.so.10"),
				cudnn,
			},
			debian: []string{"libz.so.1"}, debianSet: "engine-cuda",
			driver: []string{"libcuda.so.1"},
		},
	}
}
