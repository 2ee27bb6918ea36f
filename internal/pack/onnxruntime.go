package pack

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/serve/channel"
)

// onnxruntimeRecipe is the engine ONNX Runtime, from its pinned npm package and
// the pinned Debian libraries that it needs.
func onnxruntimeRecipe() recipe {
	return recipe{
		name: "onnxruntime",
		manifest: Manifest{
			Name: "onnxruntime", Version: "0-" + revision, Engines: []string{"onnxruntime"}, Entrypoint: []string{"/usr/bin/oscine-onnx"},
			// The format is a protocol buffer whose first field is its version.
			Formats:  []Format{{Name: "onnx", Suffixes: []string{".onnx"}, Magic: []Magic{{Hex: "08"}}}},
			Platform: "onnxruntime_onnx", Protocols: channel.Versions(), MemoryBytes: 48 << 20,
		},
		steps: []func(*builder, context.Context, *lock) error{(*builder).numbered, (*builder).skeleton, (*builder).worker, (*builder).engine, (*builder).debian},
	}
}

// numbered gives the pack the version of its engine.
func (b *builder) numbered(_ context.Context, l *lock) error {
	b.manifest.Version = l.NPM.Version + "-" + revision
	return nil
}

// libraries of Debian that the worker and ONNX Runtime need.
var libraries = []string{
	"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libstdc++.so.6", "libgcc_s.so.1",
}

func (b *builder) worker(ctx context.Context, _ *lock) error {
	return b.compile(ctx, "oscine-onnx", "usr/bin")
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
