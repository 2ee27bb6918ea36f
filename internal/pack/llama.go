package pack

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/gguf"
	"oscine.dev/oscine/internal/serve/channel"
)

// llamaRecipe is the engine llama.cpp with its server, from Debian's packages.
// Debian's stable release has none, so they come from its rolling one, with the
// C library that they were built for.
func llamaRecipe() recipe {
	return recipe{
		name: llamaName,
		manifest: Manifest{
			Name: "llama.cpp", Version: "0-" + revision, Engines: []string{"llama.cpp"}, Entrypoint: []string{"/usr/bin/oscine-llama"},
			Formats:  []Format{{Name: "gguf", Suffixes: []string{".gguf"}, Magic: []Magic{{Hex: fmt.Sprintf("%x", gguf.Magic)}}}},
			Platform: "llamacpp_gguf", Protocols: channel.Versions(), MemoryBytes: 48 << 20,
		},
	}
}

// llamaVulkanRecipe is the same engine with the library that computes by Vulkan on
// NVIDIA's GPUs. Their driver's libraries come with the device.
func llamaVulkanRecipe() recipe {
	r := llamaRecipe()
	r.name = llamaVulkanName
	m := &r.manifest
	m.Name, m.Engines, m.Entrypoint = llamaVulkanName, []string{llamaVulkanName}, append(m.Entrypoint, "--gpu")
	m.MemoryBytes = 192 << 20
	m.Requires = Requires{Devices: []string{"oscine.dev/gpu"}, KernelDrivers: map[string]string{"nvidia": "550"}}
	return r
}

// Names of the packs, and of the sets of packages in Debian's lock.
const (
	llamaName       = "llama.cpp"
	llamaVulkanName = "llama.cpp-vulkan"
)

func llamaSteps() []step {
	return []step{(*builder).skeleton, (*builder).llamaWorker, llamaPrograms("llama-server")}
}

func llamaVulkanSteps() []step { return append(llamaSteps(), (*builder).vulkanDriver) }

// vulkanDriver tells Vulkan's loader of NVIDIA's driver, by the library that needs
// no window system.
func (b *builder) vulkanDriver(context.Context, *lock) error {
	const dir = "usr/share/vulkan/icd.d"
	if err := os.MkdirAll(filepath.Join(b.root, dir), 0o755); err != nil {
		return err
	}
	const text = `{"file_format_version": "1.0.0", "ICD": {"library_path": "libEGL_nvidia.so.0", "api_version": "1.3.277"}}` + "\n"
	return os.WriteFile(filepath.Join(b.root, dir, "nvidia_icd.json"), []byte(text), 0o644)
}

func (b *builder) llamaWorker(ctx context.Context, _ *lock) error {
	return b.compile(ctx, "oscine-llama", "usr/bin")
}

// llamaPrograms is the step that adds programs of llama.cpp, one computing library for
// each kind of CPU, and all libraries that these need.
func llamaPrograms(programs ...string) step {
	return func(b *builder, ctx context.Context, _ *lock) error { return b.llama(ctx, programs) }
}

func (b *builder) llama(ctx context.Context, programs []string) error {
	source, err := debian.Open(b.Log)
	if err != nil {
		return err
	}
	tree, err := source.Tree(ctx, b.manifest.Name, b.Arch)
	if err != nil {
		return err
	}
	for _, pkg := range tree.Packages {
		if pkg.Name == "llama.cpp-tools" {
			b.manifest.Version = upstream(pkg.Version) + "-" + revision
		}
	}
	p := platformOf(b.Arch)
	backends, err := filepath.Glob(filepath.Join(tree.Dir, p.libs, "ggml/backends*/libggml-cpu*.so"))
	if err != nil || len(backends) == 0 {
		return fmt.Errorf("the packages of llama.cpp have no library that computes on a CPU: %w", errors.Join(err, fs.ErrNotExist))
	}
	// Beside them lies, in a pack that has it, the library for GPUs.
	vulkan, err := filepath.Glob(filepath.Join(tree.Dir, p.libs, "ggml/backends*/libggml-vulkan.so"))
	if err != nil || (len(vulkan) > 0) != (b.manifest.Name == llamaVulkanName) {
		return fmt.Errorf("the packages of %s have %d libraries for Vulkan: %w", b.manifest.Name, len(vulkan), errors.Join(err, fs.ErrNotExist))
	}
	var roots []string
	for _, name := range programs {
		roots = append(roots, "usr/bin/"+name)
	}
	for _, file := range append(backends, vulkan...) {
		roots = append(roots, strings.TrimPrefix(file, tree.Dir+"/"))
	}
	files, err := closure(tree.Dir, roots, []string{p.libs, filepath.Join(p.libs, "llama")})
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := os.MkdirAll(filepath.Join(b.root, filepath.Dir(file)), 0o755); err != nil {
			return err
		}
		from, err := filepath.EvalSymlinks(filepath.Join(tree.Dir, file))
		if err != nil {
			return fmt.Errorf("libraries of llama.cpp: %w", err)
		}
		if err := b.copy(from, file); err != nil {
			return err
		}
	}
	return errors.Join(b.linkLoader(), b.debianLicences(tree))
}

// upstream is Debian's version without its epoch and revision.
func upstream(version string) string {
	if _, after, ok := strings.Cut(version, ":"); ok {
		version = after
	}
	if i := strings.LastIndexByte(version, '-'); i > 0 {
		version = version[:i]
	}
	return version
}

// closure returns the files and the shared libraries that they need, found in
// dirs, all relative to root. One that is not there is an error: Debian may have
// replaced some of the packages and not others.
func closure(root string, files, dirs []string) ([]string, error) {
	var all []string
	for queue := files; len(queue) > 0; queue = queue[1:] {
		if slices.Contains(all, queue[0]) {
			continue
		}
		all = append(all, queue[0])
		needed, err := neededBy(filepath.Join(root, queue[0]))
		if err != nil {
			return nil, err
		}
		for _, name := range needed {
			i := slices.IndexFunc(dirs, func(dir string) bool {
				_, err := os.Stat(filepath.Join(root, dir, name))
				return err == nil
			})
			if i < 0 {
				return nil, fmt.Errorf("%s needs %s, which is in none of its packages: pin them again with go run ./internal/debian/relock", queue[0], name)
			}
			queue = append(slices.Clip(queue), filepath.Join(dirs[i], name))
		}
	}
	return all, nil
}

// neededBy lists the shared libraries that a program or library names.
func neededBy(file string) ([]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read the libraries that %s needs: %w", filepath.Base(file), err)
	}
	defer f.Close()
	return f.ImportedLibraries()
}
