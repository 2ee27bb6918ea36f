package pack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"oscine.dev/oscine/internal/debian"
)

// engine completes the recipe of an engine that comes from a wheel: the program
// that runs all of them, the wheel's libraries and those of Debian that they need.
func (r recipe) engine() recipe {
	r.steps = append(r.steps, numberedBy(r.wheel), (*builder).skeleton, (*builder).worker, engineFrom(r.wheel), (*builder).debian, (*builder).resolved)
	return r
}

// libraries of Debian that the worker and ONNX Runtime need.
var libraries = []string{
	"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libstdc++.so.6", "libgcc_s.so.1",
}

func (b *builder) worker(ctx context.Context, _ *lock) error {
	b.usesPurego()
	return b.compile(ctx, "oscine-engine", "usr/bin")
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
	return errors.Join(b.linkLoader(), b.debianLicences(tree))
}

// linkLoader puts the dynamic loader where programs name it.
func (b *builder) linkLoader() error {
	p := platformOf(b.Arch)
	loader, err := filepath.Rel(filepath.Dir(p.loaderLink), filepath.Join(p.libs, p.loader))
	if err != nil {
		return err
	}
	return os.Symlink(loader, filepath.Join(b.root, p.loaderLink))
}

// debianLicences records the packages of a tree and adds their licences.
func (b *builder) debianLicences(tree *debian.Tree) error {
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
	switch debianPackage {
	case "libc6":
		return "LGPL-2.1-or-later"
	case "llama.cpp-tools", "libllama0", "libggml0":
		return "MIT"
	case "libssl3t64":
		return "Apache-2.0"
	case "zlib1g":
		return "Zlib"
	case "libzstd1":
		return "BSD-3-Clause"
	}
	return "GPL-3.0-or-later WITH GCC-exception-3.1"
}
