package pack

import (
	"strings"

	"oscine.dev/oscine/internal/serve/channel"
)

// cudaRuntime is the version of CUDA 13's runtime that packs carry.
const cudaRuntime = "13.2.86"

// cudaLibrary is a wheel with libraries of NVIDIA's CUDA toolkit, which its licence
// lets others give on.
func cudaLibrary(wheelName, version string, names ...string) *wheel {
	return cudaLibraryIn("nvidia/cu13/lib/", wheelName, version, names...)
}

// cudaLibraryIn is the same for a folder of the wheel.
func cudaLibraryIn(dir, wheelName, version string, names ...string) *wheel {
	return &wheel{
		name: wheelName, spdx: "LicenseRef-NVIDIA-CUDA",
		licences: []string{strings.ReplaceAll(wheelName, "-", "_") + "-" + version + ".dist-info/licenses/License.txt"},
		libraries: func(string) map[string]string {
			files := map[string]string{}
			for _, name := range names {
				files[dir+name] = name
			}
			return files
		},
	}
}

// cuDNN is the wheel of NVIDIA's library for neural networks, for a CUDA.
func cuDNN(cuda string) *wheel {
	var names []string
	for _, part := range []string{"", "_adv", "_cnn", "_engines_precompiled", "_engines_runtime_compiled", "_graph", "_heuristic", "_ops"} {
		names = append(names, "libcudnn"+part+".so.9")
	}
	w := cudaLibraryIn("nvidia/cudnn/lib/", "nvidia-cudnn-cu"+cuda, "9.19.0.56", names...)
	w.spdx = "LicenseRef-NVIDIA-cuDNN"
	return w
}

// onnxruntimeCUDARecipe is ONNX Runtime with the libraries that compute on
// NVIDIA's GPUs. The driver's own libraries come with the device.
func onnxruntimeCUDARecipe() recipe {
	// CUDA 13 needs a driver of the branch 580 (CUDA's release notes, table 2).
	return cudaRecipe("onnxruntime-cuda", "1.31.1", "580",
		cudaLibrary("nvidia-cublas", "13.1.0.3", "libcublas.so.13", "libcublasLt.so.13"),
		cudaLibrary("nvidia-cuda-nvrtc", "13.0.88", "libnvrtc.so.13", "libnvrtc-builtins.so.13.0"),
		cudaLibrary("nvidia-cuda-runtime", cudaRuntime, "libcudart.so.13"),
		cudaLibrary("nvidia-cufft", "12.0.0.61", "libcufft.so.12"),
		cudaLibrary("nvidia-curand", "10.4.0.35", "libcurand.so.10"),
		cuDNN("13"),
	)
}

// onnxruntimeCUDA12Recipe is the last ONNX Runtime for CUDA 12, for drivers that know
// no newer one. There are no wheels for arm64.
func onnxruntimeCUDA12Recipe() recipe {
	curand := cudaLibraryIn("nvidia/curand/lib/", "nvidia-curand-cu12", "10.3.10.19", "libcurand.so.10")
	curand.licences = []string{"nvidia_curand_cu12-10.3.10.19.dist-info/License.txt"}
	// Any CUDA 12 runs from the branch 525 on (CUDA's release notes, table 2).
	return cudaRecipe("onnxruntime-cuda12", "1.26.0", "525",
		cudaLibraryIn("nvidia/cublas/lib/", "nvidia-cublas-cu12", "12.9.3.13", "libcublas.so.12", "libcublasLt.so.12"),
		cudaLibraryIn("nvidia/cuda_nvrtc/lib/", "nvidia-cuda-nvrtc-cu12", "12.9.86", "libnvrtc.so.12", "libnvrtc-builtins.so.12.9"),
		cudaLibraryIn("nvidia/cuda_runtime/lib/", "nvidia-cuda-runtime-cu12", "12.9.79", "libcudart.so.12"),
		cudaLibraryIn("nvidia/cufft/lib/", "nvidia-cufft-cu12", "11.4.1.4", "libcufft.so.11"),
		curand,
		cuDNN("12"),
	)
}

// cudaRecipe is a version of ONNX Runtime with the wheels that it needs and the
// least branch of NVIDIA's driver.
func cudaRecipe(name, version, driver string, with ...*wheel) recipe {
	return recipe{
		name: name,
		manifest: Manifest{
			Name: name, Version: "0-" + revision, Engines: []string{name}, Entrypoint: []string{"/usr/bin/oscine-engine", name},
			Formats:  []Format{onnxFormat()},
			Platform: "onnxruntime_onnx", Protocols: channel.Versions(), MemoryBytes: 256 << 20,
			Requires: Requires{Devices: []string{"oscine.dev/gpu"}, KernelDrivers: map[string]string{"nvidia": driver}},
		},
		wheel: &wheel{
			name: "onnxruntime-gpu", version: version, spdx: "MIT", licences: []string{"onnxruntime/LICENSE", "onnxruntime/ThirdPartyNotices.txt"},
			libraries: func(string) map[string]string {
				return map[string]string{
					"onnxruntime/capi/libonnxruntime.so." + version:       "libonnxruntime.so.1",
					"onnxruntime/capi/libonnxruntime_providers_shared.so": "libonnxruntime_providers_shared.so",
					"onnxruntime/capi/libonnxruntime_providers_cuda.so":   "libonnxruntime_providers_cuda.so",
				}
			},
			with:   with,
			debian: []string{"libz.so.1"}, debianSet: "engine-cuda",
			driver: []string{"libcuda.so.1"},
		},
	}
}
