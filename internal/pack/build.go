package pack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/optimize"
)

// BuildOptions says what Build makes.
type BuildOptions struct {
	Name   string    // of the pack, see Builds; "" means onnxruntime
	Arch   string    // amd64 or arm64
	Out    string    // folder for the pack
	Source string    // a folder in Oscine's source; the worker is compiled from it
	Log    io.Writer // a line for each thing fetched; may be nil

	// Of a pack with a driver of the kernel.
	Flavours      []string // of the kernels that it gets modules for; empty means all that it can have
	Secure        string   // folder of keys of Secure Boot, whose db signs the modules; "" means this machine's development key
	Archive       string   // of the driver, from its maker; "" means Debian's packages
	AcceptLicence bool     // the terms of what its maker gives out without source
}

// Revision of the packs that this source builds; it grows when a pack changes
// while its engine's version does not.
const revision = "7"

// packUUID is the file system's fixed identity, so that two builds are alike.
const packUUID = "05c13e00-7061-636b-8000-000000000001"

// Builds are the names of the packs that Build makes.
func Builds() []string {
	var names []string
	for _, r := range recipes() {
		names = append(names, r.name)
	}
	return names
}

// recipe is what a pack is. Manifests and the steps that fill them lie in a file
// for each pack.
type recipe struct {
	name     string
	manifest Manifest // without architecture, licences and inputs
	wheel    *wheel   // that holds the engine's libraries; nil: none does
}

// step is a part of making a pack.
type step = func(*builder, context.Context, *lock) error

// steps make the pack. No recipe holds its own: a node, which knows the recipes,
// would then contain all that builds packs.
func (r recipe) steps() []step {
	switch {
	case r.name == llamaName:
		return llamaSteps()
	case r.name == llamaVulkanName:
		return llamaVulkanSteps()
	case r.name == nvidiaName:
		return nvidiaSteps()
	case r.name == nvidiaDriverName:
		return nvidiaDriverSteps()
	case r.name == optimize.PackONNX:
		return optimizeONNXSteps()
	case r.name == optimize.PackGGUF:
		return optimizeGGUFSteps()
	case r.name == optimize.PackOpenVINO:
		return optimizeOpenVINOSteps()
	default:
		return engineSteps(r.wheel)
	}
}

// recipes are the packs that Oscine's source makes, the usual one first.
func recipes() []recipe {
	return []recipe{onnxruntimeRecipe(), onnxruntimeCUDARecipe(), onnxruntimeCUDA12Recipe(), openvinoRecipe(), litertRecipe(), tensorflowRecipe(), executorchRecipe(), pytorchRecipe(), llamaRecipe(), llamaVulkanRecipe(), nvidiaRecipe(), nvidiaDriverRecipe(), optimizeONNXRecipe(), optimizeGGUFRecipe(), optimizeOpenVINORecipe()}
}

// Build makes a pack. Two builds of one source give the same file. It needs the
// commands go and, while the cache lacks the engine's wheel, pip.
func Build(ctx context.Context, o BuildOptions) (*Info, error) {
	if o.Name == "" {
		o.Name = Builds()[0]
	}
	if !slices.Contains(Builds(), o.Name) {
		return nil, fmt.Errorf("there is no pack %q to build: there are %s", o.Name, strings.Join(Builds(), ", "))
	}
	if o.Name != nvidiaDriverName && (len(o.Flavours) > 0 || o.Secure != "" || o.Archive != "" || o.AcceptLicence) {
		return nil, fmt.Errorf("the pack %s has no modules of the kernel: kernels, keys, an archive and its licence are for %s", o.Name, nvidiaDriverName)
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	if o.Arch != "amd64" && o.Arch != "arm64" {
		return nil, fmt.Errorf("there is no pack for the architecture %q: use amd64 or arm64", o.Arch)
	}
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return nil, err
	}
	out, err := filepath.Abs(o.Out) // programs are compiled from within the source
	if err != nil {
		return nil, err
	}
	root, err := os.MkdirTemp(out, ".pack-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(root)
	b := builder{BuildOptions: o, root: root}
	if err := b.fill(ctx); err != nil {
		return nil, fmt.Errorf("build the pack %s for %s: %w", o.Name, o.Arch, err)
	}
	file := filepath.Join(o.Out, b.manifest.Name+"-"+o.Arch+".erofs")
	if err := b.write(ctx, file); err != nil {
		return nil, fmt.Errorf("build the pack %s for %s: %w", o.Name, o.Arch, err)
	}
	return describeFile(file, &b.manifest)
}

// builder fills a folder that becomes the pack.
type builder struct {
	BuildOptions
	root     string
	manifest Manifest
}

// platform is where an architecture keeps its libraries and loader.
type platform struct{ libs, loader, loaderLink string }

func platformOf(arch string) platform {
	if arch == "arm64" {
		return platform{"usr/lib/aarch64-linux-gnu", "ld-linux-aarch64.so.1", "usr/lib/ld-linux-aarch64.so.1"}
	}
	return platform{"usr/lib/x86_64-linux-gnu", "ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2"}
}

func (b *builder) fill(ctx context.Context) error {
	l, err := readLock()
	if err != nil {
		return err
	}
	r := recipes()[slices.Index(Builds(), b.Name)]
	b.manifest = r.manifest
	b.manifest.Arch = b.Arch
	for _, step := range append(r.steps(), (*builder).describe) {
		if err := step(b, ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// skeleton makes the mount points that a container needs on a read-only root.
func (b *builder) skeleton(context.Context, *lock) error {
	p := platformOf(b.Arch)
	dirs := []string{"dev", "proc", "sys", "tmp", "etc", "run/oscine", "model.d", "usr/bin", licencesFolder, p.libs, filepath.Dir(p.loaderLink)}
	for _, dir := range dirs {
		if err := os.MkdirAll(filepath.Join(b.root, dir), 0o755); err != nil {
			return err
		}
	}
	links := map[string]string{"lib": "usr/lib"}
	if b.Arch == "amd64" {
		links["lib64"] = "usr/lib64"
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(b.root, name)); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(b.root, "model"), nil, 0o444)
}

// compile builds a program of Oscine's source into a folder of the pack.
func (b *builder) compile(ctx context.Context, name, dir string) error {
	source, err := sourceRoot(b.Source)
	if err != nil {
		return err
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		return errors.New("the go command is needed to build " + name + ": install Go")
	}
	file := filepath.Join(b.root, dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, goTool, "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", file, "./cmd/"+name)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+b.Arch, "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOAMD64=v1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile %s: %w\n%s", name, err, bytes.TrimSpace(out))
	}
	digest, err := fileDigest(file)
	if err != nil {
		return err
	}
	b.input(name, b.manifest.Version, digest)
	b.manifest.Licences = append(b.manifest.Licences, Licence{Component: name, SPDX: "Apache-2.0"})
	if err := b.goLicences(ctx, file, source); err != nil {
		return err
	}
	return os.Chmod(file, 0o755)
}

// sourceRoot finds Oscine's source from dir upwards.
func sourceRoot(dir string) (string, error) {
	start, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for d := start; ; d = filepath.Dir(d) {
		text, err := os.ReadFile(filepath.Join(d, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module oscine.dev/oscine\n") {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("%s is not inside the source of Oscine: run this in its checkout, or name it with --source", start)
		}
	}
}

func (b *builder) describe(context.Context, *lock) error {
	b.manifest.Licences = unique(b.manifest.Licences)
	if err := b.manifest.check(); err != nil {
		return err
	}
	text, err := json.MarshalIndent(b.manifest, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.root, ManifestPath), append(text, '\n'), 0o644)
}

// unique leaves out what is listed again: two programs of a pack may have modules
// in common.
func unique(list []Licence) []Licence {
	var all []Licence
	for _, l := range list {
		if !slices.Contains(all, l) {
			all = append(all, l)
		}
	}
	return all
}

func (b *builder) input(name, version, digest string) {
	b.manifest.Inputs = append(b.manifest.Inputs, Input{Name: name, Version: version, Digest: digest})
}

// copy copies a file into the pack: read by all, executable where it was.
func (b *builder) copy(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	mode := os.FileMode(0o644)
	if info.Mode()&0o100 != 0 {
		mode = 0o755
	}
	out, err := os.OpenFile(filepath.Join(b.root, to), os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Chmod(mode), out.Close())
}

// write makes the erofs file.
func (b *builder) write(ctx context.Context, file string) error {
	if err := os.Chmod(b.root, 0o755); err != nil {
		return err
	}
	return Write(ctx, b.root, file)
}

// Write makes a pack of a folder that holds one, with its manifest; a failed or
// interrupted run leaves none. Two runs on one folder give the same file.
func Write(ctx context.Context, dir, file string) error {
	if _, err := Read(dir); err != nil {
		return err
	}
	tool, err := debian.FindTool(ctx, "mkfs.erofs")
	if err != nil {
		return err
	}
	tmp := file + ".new"
	defer os.Remove(tmp)
	cmd := tool.Command(ctx, "--quiet", "-zlz4hc", "-C65536", "-T0", "-U", packUUID, "--all-root", tmp, dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.erofs: %w: %s", err, bytes.TrimSpace(out))
	}
	if err := appendTree(tmp); err != nil {
		return fmt.Errorf("write the hash tree of %s: %w", file, err)
	}
	return durable.Replace(tmp, file)
}
