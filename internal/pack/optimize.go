package pack

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/optimize"
	"oscine.dev/oscine/internal/pypi"
)

// toolManifest is the manifest of a pack with a tool that optimises models. The tool
// learns from its argument which one it is.
func toolManifest(name string) Manifest {
	return Manifest{Name: name, Version: "0-" + revision, Tools: []string{name}, Entrypoint: []string{"/usr/bin/oscine-optimize", name}}
}

// optimizeONNXRecipe is ONNX Runtime's own tools, which are written in Python, with
// Oscine's engine beside them, by which the result is measured.
func optimizeONNXRecipe() recipe {
	return recipe{name: optimize.PackONNX, manifest: toolManifest(optimize.PackONNX)}
}

func optimizeONNXSteps() []step {
	engine := onnxruntimeRecipe().wheel
	engine.debian, engine.debianSet = pythonLibraries, pythonSet
	return []step{numberedBy(engine), (*builder).skeleton, (*builder).optimizer, (*builder).worker, engineFrom(engine), debianLibraries(engine), (*builder).python, modules(append(commonModules(), onnxModules()...)), resolved(engine)}
}

func (b *builder) optimizer(ctx context.Context, _ *lock) error {
	work := filepath.Join(b.root, optimize.WorkDir)
	if err := os.Mkdir(work, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(work, 0o777|fs.ModeSticky); err != nil { // whatever the umask
		return err
	}
	return b.compile(ctx, "oscine-optimize", "usr/bin")
}

const (
	pythonSet    = "python" // of packages in Debian's lock
	pythonFolder = "usr/lib/python3.13"
	modulesPath  = "usr/lib/python3/dist-packages"
)

// pythonLibraries are those of Debian that Python needs beside the engine's.
var pythonLibraries = []string{"libexpat.so.1", "libz.so.1", "libbz2.so.1.0", "libffi.so.8", "liblzma.so.5", "libuuid.so.1"}

// python adds Debian's Python without what no tool imports: modules for terminals,
// databases and TLS, whose libraries the pack lacks, and those that install others.
func (b *builder) python(ctx context.Context, _ *lock) error {
	source, err := debian.Open(b.Log)
	if err != nil {
		return err
	}
	tree, err := source.Tree(ctx, pythonSet, b.Arch)
	if err != nil {
		return err
	}
	if err := b.copy(filepath.Join(tree.Dir, "usr/bin/python3.13"), "usr/bin/python3"); err != nil {
		return err
	}
	return b.copyTree(tree.Dir, pythonFolder, func(name string) bool {
		dir, _ := path.Split(strings.TrimPrefix(name, pythonFolder+"/"))
		if dir != "lib-dynload/" {
			return !slices.ContainsFunc([]string{"ensurepip/", "idlelib/", "tkinter/", "turtledemo/", "pydoc_data/", "test/", "curses/", "sqlite3/"},
				func(without string) bool { return strings.HasPrefix(dir, without) })
		}
		needed, err := neededBy(filepath.Join(tree.Dir, name))
		return err == nil && !slices.ContainsFunc(needed, func(library string) bool {
			return !slices.Contains(pythonLibraries, library) && !slices.Contains(libraries, library) && library != platformOf(b.Arch).loader
		})
	})
}

// copyTree copies a folder, to the same place in the pack, without links to what is
// not in it and what wanted refuses.
func (b *builder) copyTree(root, dir string, wanted func(name string) bool) error {
	return filepath.WalkDir(filepath.Join(root, dir), func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name := strings.TrimPrefix(file, root+"/")
		if !wanted(name) {
			return nil
		}
		from, err := filepath.EvalSymlinks(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it leads to the host's configuration
		}
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(b.root, filepath.Dir(name)), 0o755); err != nil {
			return err
		}
		return b.copy(from, name)
	})
}

// module is a project of the index whose wheel is taken whole.
type module struct {
	name, version string   // version: where the lock has several; else ""
	spdx          string   // "": its licence is in the pack already
	licences      []string // their texts, below the wheel's folder of metadata; none: it has none
}

// commonModules are those of Python that several tools import.
func commonModules() []module {
	return []module{
		{name: "packaging", spdx: "Apache-2.0 OR BSD-2-Clause", licences: []string{"licenses/LICENSE", "licenses/LICENSE.APACHE", "licenses/LICENSE.BSD"}},
	}
}

// onnxModules are those that ONNX Runtime's tools import.
func onnxModules() []module {
	return []module{
		{name: "flatbuffers", spdx: "Apache-2.0"},
		{name: "ml-dtypes", spdx: "Apache-2.0 AND MPL-2.0", licences: []string{"licenses/LICENSE", "licenses/LICENSE.eigen"}},
		{name: "numpy", version: "2.5.5", spdx: numpySPDX, licences: []string{"licenses/LICENSE.txt"}},
		{name: "onnx", spdx: "Apache-2.0", licences: []string{"licenses/LICENSE", "licenses/NOTICE"}},
		{name: "protobuf", spdx: "BSD-3-Clause", licences: []string{"LICENSE"}},
		{name: "typing-extensions", spdx: "PSF-2.0", licences: []string{"licenses/LICENSE"}},
		{name: "onnxruntime"},
	}
}

// numpySPDX is NumPy's licence, with that of what its wheels bring.
const numpySPDX = "BSD-3-Clause AND MIT AND Zlib AND CC0-1.0 AND GPL-3.0-or-later WITH GCC-exception-3.1"

// modules is the step that adds Python's modules.
func modules(list []module) step {
	return func(b *builder, ctx context.Context, l *lock) error {
		source, err := pypi.Open(b.Log)
		if err != nil {
			return err
		}
		to := filepath.Join(b.root, modulesPath)
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		for _, m := range list {
			pinned, err := l.wheel(m.name, m.version)
			if err != nil {
				return err
			}
			wheel, err := source.Wheel(ctx, pinned, b.Arch, true)
			if err != nil {
				return err
			}
			if err := pypi.ExtractAll(wheel, to, imported); err != nil {
				return err
			}
			if m.spdx == "" {
				continue
			}
			file, err := pinned.For(b.Arch)
			if err != nil {
				return err
			}
			b.input("pypi:"+m.name, pinned.Version, "sha256:"+file.SHA256)
			if err := b.moduleLicences(m, pinned.Version, wheel); err != nil {
				return err
			}
		}
		return nil
	}
}

// imported reports whether a file of a wheel is of use to one who imports it.
func imported(name string) bool {
	for _, without := range []string{"/tests/", "/include/", "onnx/backend/test/", "onnx/test/", "onnxruntime/capi/libonnxruntime", ".dist-info/",
		"intel_gpu_plugin", "intel_npu_", "openvino/libs/cache.json", "tbbmalloc_proxy"} {
		if strings.Contains(name, without) {
			return false
		}
	}
	return !slices.Contains([]string{".pyi", ".h", ".a", ".cc", ".proto", ".hpp"}, path.Ext(name))
}

func (b *builder) moduleLicences(m module, version, wheel string) error {
	if len(m.licences) == 0 {
		b.manifest.Licences = append(b.manifest.Licences, Licence{Component: m.name, SPDX: m.spdx})
		return nil
	}
	want := map[string]string{}
	for _, text := range m.licences {
		text = strings.ReplaceAll(m.name, "-", "_") + "-" + version + ".dist-info/" + text
		to := path.Join(licencesFolder, m.name+"."+path.Base(text))
		want[text] = to
		b.manifest.Licences = append(b.manifest.Licences, Licence{Component: m.name, SPDX: m.spdx, File: "/" + to})
	}
	return pypi.Extract(wheel, b.root, want)
}
