package pack

import (
	"context"
	"crypto/sha256"
	_ "embed" // of wheels.json
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	"oscine.dev/oscine/internal/pypi"
)

//go:embed wheels.json
var lockText []byte

// lock pins what packs are built from beside Debian packages.
type lock struct{ wheels []pypi.Package }

func readLock() (*lock, error) {
	wheels, err := pypi.ParseLock(lockText)
	if err != nil {
		return nil, fmt.Errorf("the lock of packs: %w", err)
	}
	return &lock{wheels}, nil
}

func (l *lock) wheel(name string) (pypi.Package, error) {
	i := slices.IndexFunc(l.wheels, func(p pypi.Package) bool { return p.Name == name })
	if i < 0 {
		return pypi.Package{}, fmt.Errorf("the lock of packs has no wheel of %s", name)
	}
	return l.wheels[i], nil
}

// wheel is what a pack takes out of a pinned wheel.
type wheel struct {
	name     string // of the project in the index
	arm64    string // its name there for arm64, where that is another
	spdx     string
	licences []string // their texts, by the path in the wheel
	// libraries gives for an architecture the libraries by their path in the
	// wheel, with the name that they have in the pack.
	libraries func(arch string) map[string]string
	shim      *shim // over these; nil: the engine has a C API
}

func (w *wheel) project(arch string) string {
	if arch == "arm64" && w.arm64 != "" {
		return w.arm64
	}
	return w.name
}

// licencesDir is where a tree of a wheel has its licences.
const licencesDir = "licences"

// tree returns a folder of the cache with the wheel's libraries and, below
// licencesDir, its licences.
func (w *wheel) tree(ctx context.Context, l *lock, arch string, fetch bool, log io.Writer) (string, *pypi.Package, error) {
	p, err := l.wheel(w.project(arch))
	if err != nil {
		return "", nil, err
	}
	source, err := pypi.Open(log)
	if err != nil {
		return "", nil, err
	}
	want := maps.Clone(w.libraries(arch))
	for _, file := range w.licences {
		want[file] = path.Join(licencesDir, path.Base(file))
	}
	dir, err := source.Tree(ctx, p, arch, want, fetch)
	if err == nil && w.shim != nil {
		dir, err = w.shim.linked(ctx, p, arch, dir, fetch, log)
	}
	return dir, &p, err
}

// names are the libraries' in the pack.
func (w *wheel) names(arch string) []string {
	names := slices.Sorted(maps.Values(w.libraries(arch)))
	if w.shim != nil {
		names = append(names, w.shim.library())
	}
	return names
}

// Libraries returns a folder of the cache with the pinned libraries of an
// engine for an architecture, by the engine's name. Where the cache lacks them
// and fetch is false, the error wraps os.ErrNotExist.
func Libraries(ctx context.Context, engine, arch string, fetch bool, log io.Writer) (string, error) {
	l, err := readLock()
	if err != nil {
		return "", err
	}
	for _, r := range recipes() {
		if r.wheel == nil || !slices.Contains(r.manifest.Engines, engine) {
			continue
		}
		dir, _, err := r.wheel.tree(ctx, l, arch, fetch, log)
		if err != nil {
			return "", fmt.Errorf("libraries of the engine %s (oscine pack build %s fetches them): %w", engine, r.name, err)
		}
		return dir, nil
	}
	return "", fmt.Errorf("no wheel holds the engine %q", engine)
}

// engineFrom is the step that adds the libraries and the licences of a wheel;
// the pack has the version of the wheel.
func engineFrom(w *wheel) func(*builder, context.Context, *lock) error {
	return func(b *builder, ctx context.Context, l *lock) error {
		dir, p, err := w.tree(ctx, l, b.Arch, true, b.Log)
		if err != nil {
			return err
		}
		for _, name := range w.names(b.Arch) {
			if err := b.copy(filepath.Join(dir, name), filepath.Join(platformOf(b.Arch).libs, name)); err != nil {
				return err
			}
		}
		file, err := p.For(b.Arch)
		if err != nil {
			return err
		}
		b.input("pypi:"+p.Name, p.Version, "sha256:"+file.SHA256)
		if w.shim != nil {
			inputs, err := compilerInputs(b.Arch)
			if err != nil {
				return err
			}
			b.manifest.Inputs = append(b.manifest.Inputs, inputs...)
		}
		for _, text := range w.licences {
			to := path.Join(licencesFolder, p.Name+"."+path.Base(text))
			if err := b.copy(filepath.Join(dir, licencesDir, path.Base(text)), to); err != nil {
				return err
			}
			b.manifest.Licences = append(b.manifest.Licences, Licence{Component: p.Name, SPDX: w.spdx, File: "/" + to})
		}
		return nil
	}
}

// numberedBy is the step that gives the pack the version of a wheel.
func numberedBy(w *wheel) func(*builder, context.Context, *lock) error {
	return func(b *builder, _ context.Context, l *lock) error {
		p, err := l.wheel(w.project(b.Arch))
		if err == nil {
			b.manifest.Version = p.Version + "-" + revision
		}
		return err
	}
}

func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
