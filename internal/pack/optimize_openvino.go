package pack

import (
	"context"
	"os"
	"path/filepath"

	"oscine.dev/oscine/internal/optimize"
)

// optimizeOpenVINORecipe is NNCF, which is written in Python, with OpenVINO and Oscine's
// engine, by which the result is measured.
func optimizeOpenVINORecipe() recipe {
	return recipe{name: optimize.PackOpenVINO, manifest: toolManifest(optimize.PackOpenVINO)}
}

func optimizeOpenVINOSteps() []step {
	nncf := &wheel{name: "nncf", debian: pythonLibraries, debianSet: pythonSet}
	return []step{numberedBy(nncf), (*builder).skeleton, (*builder).optimizer, (*builder).worker, debianLibraries(nncf), (*builder).python, modules(append(commonModules(), openvinoModules()...)), (*builder).openvinoLinks, resolved(nncf)}
}

// openvinoModules are those that NNCF imports, and OpenVINO with its licences.
func openvinoModules() []module {
	return []module{
		{name: "networkx", spdx: "BSD-3-Clause", licences: []string{"licenses/LICENSE.txt"}},
		{name: "nncf", spdx: "Apache-2.0", licences: []string{"licenses/LICENSE"}},
		{name: "numpy", version: "2.4.6", spdx: numpySPDX, licences: []string{"licenses/LICENSE.txt"}},
		{name: "openvino", spdx: "Apache-2.0", licences: []string{
			"licenses/LICENSE", "licenses/licensing/onednn_third-party-programs.txt",
			"licenses/licensing/onetbb_third-party-programs.txt", "licenses/licensing/runtime-third-party-programs.txt",
		}},
		{name: "openvino-telemetry", spdx: "Apache-2.0", licences: []string{"LICENSE"}},
		{name: "psutil", spdx: "BSD-3-Clause", licences: []string{"LICENSE"}},
		{name: "pygments", spdx: "BSD-2-Clause", licences: []string{"licenses/AUTHORS", "licenses/LICENSE"}},
		{name: "rich", spdx: "MIT", licences: []string{"licenses/LICENSE"}},
		{name: "safetensors", spdx: "Apache-2.0", licences: []string{"licenses/LICENSE"}},
		{name: "scipy", spdx: "BSD-3-Clause AND BSD-3-Clause-Open-MPI AND GPL-3.0-or-later WITH GCC-exception-3.1", licences: []string{"LICENSE.txt"}},
		{name: "tabulate", spdx: "MIT", licences: []string{"licenses/LICENSE"}},
	}
}

// openvinoLinks puts the engine's libraries, which Python's module brings, where the
// engine finds them.
func (b *builder) openvinoLinks(context.Context, *lock) error {
	p := platformOf(b.Arch)
	from, err := filepath.Rel(p.libs, filepath.Join(modulesPath, "openvino/libs"))
	if err != nil {
		return err
	}
	for _, name := range openvinoLibraries(b.Arch) {
		if err := os.Symlink(filepath.Join(from, name), filepath.Join(b.root, p.libs, name)); err != nil {
			return err
		}
	}
	return nil
}
