package pack

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
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
)

// BuildOptions says what Build makes.
type BuildOptions struct {
	Name   string    // of the pack, see Builds; "" means onnxruntime
	Arch   string    // amd64 or arm64
	Out    string    // folder for the pack
	Source string    // a folder in Oscine's source; the worker is compiled from it
	Log    io.Writer // a line for each thing fetched; may be nil
}

// Revision of the packs that this source builds; it grows when a pack changes
// while its engine's version does not.
const revision = "1"

// packUUID is the file system's fixed identity, so that two builds are alike.
const packUUID = "05c13e00-7061-636b-8000-000000000001"

// Builds are the packs that Build makes: the engine ONNX Runtime, from its
// pinned npm package and the pinned Debian libraries that it needs, and the
// helper of NVIDIA's drivers, from Oscine's own source.
func Builds() []string { return []string{"onnxruntime", "nvidia"} }

// Build makes a pack. Two builds of one source give the same file. It needs the
// commands go and, while the cache lacks ONNX Runtime, npm.
func Build(ctx context.Context, o BuildOptions) (*Info, error) {
	if o.Name == "" {
		o.Name = Builds()[0]
	}
	if !slices.Contains(Builds(), o.Name) {
		return nil, fmt.Errorf("there is no pack %q to build: there are %s", o.Name, strings.Join(Builds(), " and "))
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
	root, err := os.MkdirTemp(o.Out, ".pack-")
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
	digest, err := fileDigest(file)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	return &Info{Manifest: b.manifest, Digest: "sha256:" + digest, SizeBytes: info.Size(), File: file}, nil
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

// libraries of Debian that the worker and ONNX Runtime need.
var libraries = []string{
	"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libstdc++.so.6", "libgcc_s.so.1",
}

func (b *builder) fill(ctx context.Context) error {
	l, err := readLock()
	if err != nil {
		return err
	}
	steps := []func(context.Context, *lock) error{b.skeleton, b.worker, b.engine, b.debian, b.describe}
	b.manifest = Manifest{
		Name: "onnxruntime", Version: l.NPM.Version + "-" + revision, Arch: b.Arch,
		Engines: []string{"onnxruntime"}, Entrypoint: []string{"/usr/bin/oscine-onnx"},
	}
	if b.Name == "nvidia" {
		steps = []func(context.Context, *lock) error{b.helper, b.describe}
		b.manifest = Manifest{Name: "nvidia", Version: "1-" + revision, Arch: b.Arch, Drivers: []string{"oscine-nvml"}}
	}
	for _, step := range steps {
		if err := step(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// skeleton makes the mount points that a container needs on a read-only root.
func (b *builder) skeleton(context.Context, *lock) error {
	p := platformOf(b.Arch)
	dirs := []string{"dev", "proc", "sys", "tmp", "etc", "run/oscine", "usr/bin", "usr/share/licences", p.libs, filepath.Dir(p.loaderLink)}
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

func (b *builder) worker(ctx context.Context, _ *lock) error {
	return b.compile(ctx, "oscine-onnx", "usr/bin")
}

// helper is the driver program of the NVIDIA pack. NVIDIA's own libraries are
// not in it: they must be those of the node's kernel driver.
func (b *builder) helper(ctx context.Context, _ *lock) error {
	if err := b.compile(ctx, "oscine-nvml", DriversPath); err != nil {
		return err
	}
	for component, spdx := range map[string]string{
		"github.com/klauspost/compress": "BSD-3-Clause AND Apache-2.0 AND MIT", "github.com/ulikunitz/xz": "BSD-3-Clause",
		"github.com/fsnotify/fsnotify": "BSD-3-Clause", "github.com/opencontainers/runtime-spec": "Apache-2.0",
		"go.yaml.in/yaml/v3": "MIT AND Apache-2.0", "tags.cncf.io/container-device-interface": "Apache-2.0",
	} {
		b.manifest.Licences = append(b.manifest.Licences, Licence{Component: component, SPDX: spdx})
	}
	slices.SortFunc(b.manifest.Licences, func(x, y Licence) int { return strings.Compare(x.Component, y.Component) })
	return nil
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
	b.input(name, b.manifest.Version, "sha256:"+digest)
	b.manifest.Licences = append(b.manifest.Licences,
		Licence{Component: name, SPDX: "Apache-2.0"},
		Licence{Component: "github.com/ebitengine/purego", SPDX: "Apache-2.0"},
		Licence{Component: "golang.org/x/sys and the Go library", SPDX: "BSD-3-Clause"})
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

func (b *builder) engine(ctx context.Context, l *lock) error {
	file, err := Runtime(ctx, b.Arch, true, b.Log)
	if err != nil {
		return err
	}
	to := filepath.Join(platformOf(b.Arch).libs, filepath.Base(file))
	if err := b.copy(file, to); err != nil {
		return err
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(l.NPM.Integrity, "sha512-"))
	if err != nil {
		return fmt.Errorf("the lock's integrity of %s: %w", l.NPM.Name, err)
	}
	b.input("npm:"+l.NPM.Name, l.NPM.Version, "sha512:"+hex.EncodeToString(raw))
	const licence = "usr/share/licences/onnxruntime"
	b.manifest.Licences = append(b.manifest.Licences, Licence{Component: "onnxruntime", SPDX: "MIT", File: "/" + licence})
	return os.WriteFile(filepath.Join(b.root, licence), []byte(onnxruntimeLicence), 0o644)
}

// debian adds the libraries, whose licences lie beside them.
func (b *builder) debian(ctx context.Context, _ *lock) error {
	source, err := debian.Open(b.Log)
	if err != nil {
		return err
	}
	tree, err := source.Tree(ctx, "engine", b.Arch)
	if err != nil {
		return err
	}
	p := platformOf(b.Arch)
	for _, name := range append([]string{p.loader}, libraries...) {
		from, err := filepath.EvalSymlinks(filepath.Join(tree.Dir, p.libs, name))
		if err != nil {
			return fmt.Errorf("libraries of Debian: %w", err)
		}
		if err := b.copy(from, filepath.Join(p.libs, name)); err != nil {
			return err
		}
	}
	loader, err := filepath.Rel(filepath.Dir(p.loaderLink), filepath.Join(p.libs, p.loader))
	if err != nil {
		return err
	}
	if err := os.Symlink(loader, filepath.Join(b.root, p.loaderLink)); err != nil {
		return err
	}
	for _, pkg := range tree.Packages {
		b.input("debian:"+pkg.Name, pkg.Version, "sha256:"+pkg.SHA256)
		doc := filepath.Join(tree.Dir, "usr/share/doc", pkg.Name, "copyright")
		if _, err := os.Stat(doc); err != nil {
			continue // a package that shares the folder of another
		}
		licence := "usr/share/licences/" + pkg.Name
		if err := b.copy(doc, licence); err != nil {
			return err
		}
		b.manifest.Licences = append(b.manifest.Licences, Licence{Component: pkg.Name, SPDX: spdx(pkg.Name), File: "/" + licence})
	}
	return nil
}

func spdx(debianPackage string) string {
	if debianPackage == "libc6" {
		return "LGPL-2.1-or-later"
	}
	return "GPL-3.0-or-later WITH GCC-exception-3.1"
}

func (b *builder) describe(context.Context, *lock) error {
	if err := b.manifest.check(); err != nil {
		return err
	}
	text, err := json.MarshalIndent(b.manifest, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.root, ManifestPath), append(text, '\n'), 0o644)
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

// write makes the erofs file; a failed or interrupted run leaves none.
func (b *builder) write(ctx context.Context, file string) error {
	if err := os.Chmod(b.root, 0o755); err != nil {
		return err
	}
	tool, err := debian.FindTool(ctx, "mkfs.erofs")
	if err != nil {
		return err
	}
	tmp := file + ".new"
	defer os.Remove(tmp)
	cmd := tool.Command(ctx, "--quiet", "-zlz4hc", "-T0", "-U", packUUID, "--all-root", tmp, b.root)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.erofs: %w: %s", err, bytes.TrimSpace(out))
	}
	return os.Rename(tmp, file)
}
