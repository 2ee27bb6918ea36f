package pack

import (
	"context"
	"debug/elf"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/kernelmodule"
	"oscine.dev/oscine/internal/secureboot"
	"oscine.dev/oscine/internal/uki"
)

const nvidiaDriverName = "nvidia-driver"

// driverPatches are changes of the source of kernel modules for newer kernels, in files
// that are named after the driver's version.
//
//go:embed driver
var driverPatches embed.FS

// driverFlavours are the kernels that the driver is built for. NVIDIA supports none with
// PREEMPT_RT, and modules for metal need the module drm, which the image lacks.
var driverFlavours = []string{"cloud"}

func nvidiaDriverRecipe() recipe {
	return recipe{
		name:     nvidiaDriverName,
		manifest: Manifest{Name: nvidiaDriverName, Version: "0-" + revision, Drivers: []string{"oscine-nvml"}},
	}
}

func nvidiaDriverSteps() []step {
	return []step{(*builder).nvidiaDriver, (*builder).helper, func(b *builder, _ context.Context, _ *lock) error { return b.resolve(systemLibraries()) }}
}

// systemLibraries are those that each machine and container has which can run the
// driver's.
func systemLibraries() []string {
	return []string{"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
}

// nvidiaParts is where the parts of NVIDIA's driver lie.
type nvidiaParts struct {
	version  string // such as 550.163.01
	id       string // of all
	modules  string // folder with the source of the kernel modules
	firmware string // folder with the firmware's files
	tree     string // folder in or below which the libraries and programs lie
	licence  string // file of the terms of what comes without source
	record   func() error
}

// nvidiaDriver puts the driver into the pack: the modules, compiled and signed, the
// firmware and the libraries.
func (b *builder) nvidiaDriver(ctx context.Context, _ *lock) error {
	parts, err := b.debianDriver, error(nil)
	if b.Archive != "" {
		parts = b.archivedDriver
	}
	p, err := parts(ctx)
	if err != nil {
		return err
	}
	if !b.AcceptLicence {
		return fmt.Errorf("the firmware and libraries of this driver are NVIDIA's, under the terms in %s: read them, and build with --accept-licence if you accept them", p.licence)
	}
	b.manifest.Version = p.version + "-" + revision
	b.manifest.Kernel = &KernelDriver{Name: "nvidia", Version: p.version, CUDA: newestCUDA(p.version)}
	if err := b.driverModules(ctx, p); err != nil {
		return err
	}
	if err := b.driverFiles(p); err != nil {
		return err
	}
	return p.record()
}

// debianDriver is the driver of Debian's packages.
func (b *builder) debianDriver(ctx context.Context) (*nvidiaParts, error) {
	source, err := debian.Open(b.Log)
	if err != nil {
		return nil, err
	}
	tree, err := source.Tree(ctx, nvidiaDriverName, b.Arch)
	if err != nil {
		return nil, err
	}
	modules, err := filepath.Glob(filepath.Join(tree.Dir, "usr/src/nvidia-*"))
	if err != nil || len(modules) != 1 {
		return nil, fmt.Errorf("the package of the kernel modules in %s does not hold one source: %w", tree.Dir, errors.Join(err, fs.ErrNotExist))
	}
	p := &nvidiaParts{id: filepath.Base(tree.Dir), modules: modules[0], tree: tree.Dir, record: func() error { return b.debianLicences(tree) }}
	p.version = upstream(tree.Packages[0].Version)
	for _, pkg := range tree.Packages {
		if upstream(pkg.Version) != p.version {
			return nil, fmt.Errorf("%s has version %s, %s %s: the parts of a driver must be of one version; pin them again with go run ./internal/debian/relock", pkg.Name, pkg.Version, tree.Packages[0].Name, p.version)
		}
		if pkg.Name == "libcuda1" {
			file, _, err := tree.Copyright(pkg)
			if err != nil {
				return nil, err
			}
			p.licence = filepath.Join(tree.Dir, file)
		}
	}
	p.firmware = filepath.Join(tree.Dir, "usr/lib/firmware/nvidia", p.version)
	return p, nil
}

// driverModules compiles the modules for each kernel, and signs them.
func (b *builder) driverModules(ctx context.Context, p *nvidiaParts) error {
	key, err := b.moduleKey()
	if err != nil {
		return err
	}
	patch, err := driverPatches.ReadFile("driver/" + p.version + ".patch")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	k := b.manifest.Kernel
	// Computing needs no more: nvidia-modeset and nvidia-drm are for displays.
	k.Modules = []string{"nvidia", "nvidia-uvm"}
	source := kernelmodule.Source{ID: p.id, Dir: p.modules, Patch: patch, Names: k.Modules, Arguments: func(to *kernelmodule.Kernel) []string {
		return []string{"SYSSRC=" + to.Headers, "SYSOUT=" + to.Output, "KERNEL_UNAME=" + to.Release, "NV_KERNEL_MODULES=" + strings.Join(k.Modules, " ")}
	}}
	flavours := b.Flavours
	if len(flavours) == 0 {
		flavours = driverFlavours
	}
	for _, flavour := range flavours {
		if !slices.Contains(driverFlavours, flavour) {
			return fmt.Errorf("NVIDIA's driver is not built for the kernel %q: %s can be chosen (modules for metal need the module drm, which the image lacks; NVIDIA supports no kernel with PREEMPT_RT)", flavour, strings.Join(driverFlavours, " and "))
		}
		dir, kernel, err := kernelmodule.Compile(ctx, source, flavour, b.Arch, b.Log)
		if err != nil {
			return err
		}
		k.Kernels = append(k.Kernels, kernel.Release)
		for _, name := range k.Modules {
			if err := b.module(filepath.Join(dir, name+".ko"), path.Join(ModulesPath, kernel.Release, name+".ko"), kernel.Release, key); err != nil {
				return err
			}
		}
	}
	return nil
}

// moduleKey is the key that signs modules: that of the images, as oscine image build
// takes it.
func (b *builder) moduleKey() (*uki.Key, error) {
	if b.Secure != "" {
		key, _, err := secureboot.Load(b.Secure)
		return key, err
	}
	cache, err := debian.CacheDir()
	if err != nil {
		return nil, err
	}
	return uki.DevelopmentKey(cache)
}

// module puts a signed module for a kernel into the pack, and notes its devices.
func (b *builder) module(from, to, kernel string, key *uki.Key) error {
	info, err := kernelmodule.Info(from)
	if err != nil {
		return err
	}
	if abi := strings.Join(info["vermagic"], " "); !strings.HasPrefix(abi, kernel+" ") {
		return fmt.Errorf("the module %s is for the kernel %q instead of %s", filepath.Base(from), abi, kernel)
	}
	k := b.manifest.Kernel
	if needs := strings.Join(info["depends"], ","); needs != "" && needs != "nvidia" {
		return fmt.Errorf("the module %s needs %s, which the pack does not bring", filepath.Base(from), needs)
	}
	for _, alias := range info["alias"] {
		if strings.HasPrefix(alias, "pci:") && !slices.Contains(k.Devices, alias) {
			k.Devices = append(k.Devices, alias)
		}
	}
	slices.Sort(k.Devices)
	plain, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	signed, err := kernelmodule.Sign(plain, key)
	if err != nil {
		return err
	}
	file := filepath.Join(b.root, to)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, signed, 0o644)
}

// nvidiaLibraries are what programs load that compute on a GPU or draw on it without a
// window system, nvml.Library.files among them. Those that not every version has
// end in a question mark.
var nvidiaLibraries = []string{"libnvidia-ml", "libcuda", "libnvidia-ptxjitcompiler", "libnvidia-nvvm", "libnvidia-gpucomp?",
	"libEGL_nvidia", "libnvidia-eglcore", "libnvidia-glsi", "libnvidia-tls?", "libnvidia-glvkspirv"}

// driverFiles copies firmware and libraries, each library with the name by which it is
// loaded.
func (b *builder) driverFiles(p *nvidiaParts) error {
	to := path.Join(FirmwarePath, "nvidia", p.version)
	libs := platformOf(b.Arch).libs
	for _, dir := range []string{to, libs, "usr/bin", licencesFolder} {
		if err := os.MkdirAll(filepath.Join(b.root, dir), 0o755); err != nil {
			return err
		}
	}
	firmware, err := filepath.Glob(filepath.Join(p.firmware, "gsp_*.bin"))
	if err != nil || len(firmware) == 0 {
		return fmt.Errorf("the driver has no firmware in %s: %w", p.firmware, errors.Join(err, fs.ErrNotExist))
	}
	for _, file := range firmware {
		if err := b.copy(file, path.Join(to, filepath.Base(file))); err != nil {
			return err
		}
	}
	for _, name := range nvidiaLibraries {
		name, optional := strings.CutSuffix(name, "?")
		file, err := findBelow(p.tree, name+".so."+p.version)
		if errors.Is(err, fs.ErrNotExist) && optional {
			continue
		}
		if err != nil {
			return err
		}
		if err := b.copy(file, path.Join(libs, filepath.Base(file))); err != nil {
			return err
		}
		soname, err := sonameOf(file)
		if err != nil {
			return err
		}
		if soname != filepath.Base(file) {
			if err := os.Symlink(filepath.Base(file), filepath.Join(b.root, libs, soname)); err != nil {
				return err
			}
		}
	}
	return nil
}

// findBelow finds the file of a name in a folder or below it.
func findBelow(dir, name string) (found string, err error) {
	err = filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && d.Name() == name && !strings.Contains(file, "/32/") {
			found, err = file, fs.SkipAll
		}
		return err
	})
	if err == nil && found == "" {
		err = fmt.Errorf("the driver in %s lacks %s: %w", dir, name, fs.ErrNotExist)
	}
	return found, err
}

func sonameOf(file string) (string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return "", fmt.Errorf("read the library %s: %w", file, err)
	}
	defer f.Close()
	names, err := f.DynString(elf.DT_SONAME)
	if err != nil || len(names) != 1 || names[0] != filepath.Base(names[0]) {
		return "", fmt.Errorf("read the library %s: it has no name to load it by: %w", file, errors.Join(err, fs.ErrInvalid))
	}
	return names[0], nil
}

var branchRE = regexp.MustCompile(`^(\d+)\.`)

// newestCUDA is the newest CUDA that a driver knows (CUDA's release notes, table 3), ""
// where that is not known.
func newestCUDA(version string) string {
	m := branchRE.FindStringSubmatch(version)
	if m == nil {
		return ""
	}
	branch, err := strconv.Atoi(m[1])
	if err != nil {
		return ""
	}
	return map[int]string{525: "12.0", 530: "12.1", 535: "12.2", 545: "12.3", 550: "12.4", 555: "12.5", 560: "12.6", 565: "12.7", 570: "12.8", 575: "12.9", 580: "13.0"}[branch]
}
