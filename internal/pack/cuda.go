package pack

import "strings"

// cudaRuntime is the version of CUDA's runtime that packs carry.
const cudaRuntime = "13.2.86"

// cudaLibrary is a wheel with libraries of NVIDIA's CUDA toolkit, which its licence
// lets others give on.
func cudaLibrary(wheelName, version string, names ...string) *wheel {
	return &wheel{
		name: wheelName, spdx: "LicenseRef-NVIDIA-CUDA",
		licences: []string{strings.ReplaceAll(wheelName, "-", "_") + "-" + version + ".dist-info/licenses/License.txt"},
		libraries: func(string) map[string]string {
			files := map[string]string{}
			for _, name := range names {
				files["nvidia/cu13/lib/"+name] = name
			}
			return files
		},
	}
}
