package pack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"oscine.dev/oscine/internal/debian"
)

// engineSteps make the pack of an engine that comes from a wheel: the program that
// runs all of them, the wheel's libraries and those of Debian that they need.
func engineSteps(w *wheel) []step {
	return []step{numberedBy(w), (*builder).skeleton, (*builder).worker, engineFrom(w), debianLibraries(w), resolved(w)}
}

// libraries of Debian that the worker and ONNX Runtime need.
var libraries = []string{
	"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libstdc++.so.6", "libgcc_s.so.1",
}

func (b *builder) worker(ctx context.Context, _ *lock) error {
	return b.compile(ctx, "oscine-engine", "usr/bin")
}

// debianLibraries is the step that adds the libraries, whose licences lie beside them.
func debianLibraries(w *wheel) step {
	return func(b *builder, ctx context.Context, _ *lock) error {
		return b.debian(ctx, cmp.Or(w.debianSet, "engine"), append(slices.Clone(libraries), w.debian...))
	}
}

// debian adds libraries of a set of packages, and the loader.
func (b *builder) debian(ctx context.Context, set string, libraries []string) error {
	source, err := debian.Open(b.Log)
	if err != nil {
		return err
	}
	tree, err := source.Tree(ctx, set, b.Arch)
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
