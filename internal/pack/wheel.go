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

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/licence"
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

// wheel returns the wheel of a name, and of a version where that is not "".
func (l *lock) wheel(name, version string) (pypi.Package, error) {
	i := slices.IndexFunc(l.wheels, func(p pypi.Package) bool { return p.Name == name && (version == "" || p.Version == version) })
	if i < 0 {
		return pypi.Package{}, fmt.Errorf("the lock of packs has no wheel of %s %s", name, version)
	}
	return l.wheels[i], nil
}

// wheel is what a pack takes out of a pinned wheel.
type wheel struct {
	name     string // of the project in the index
	arm64    string // its name there for arm64, where that is another
	version  string // where the lock has several; else ""
	spdx     string
	licences []string // their texts, by the path in the wheel
	others   string   // a folder of the wheel with the licences of what its makers took from elsewhere; "": none
	// libraries gives for an architecture the libraries by their path in the
	// wheel, with the name that they have in the pack.
	libraries func(arch string) map[string]string
	with      []*wheel // that hold more libraries
	debian    []string // libraries of Debian that other packs do without
	debianSet string   // of Debian's lock, that holds them; "": the set of all engines
	driver    []string // libraries that come with the node's kernel driver, never with a pack
	shim      *shim    // over all these; nil: the engine has a C API
}

func (w *wheel) project(arch string) string {
	if arch == "arm64" && w.arm64 != "" {
		return w.arm64
	}
	return w.name
}

// licencesDir is where a tree of a wheel has its licences.
const licencesDir = "licences"

// part is a wheel with a folder of the cache that holds its libraries and, below
// licencesDir, its licences.
type part struct {
	*wheel
	pinned pypi.Package
	dir    string
}

// parts are the wheel and those beside it.
func (w *wheel) parts(ctx context.Context, l *lock, arch string, fetch bool, log io.Writer) ([]part, error) {
	source, err := pypi.Open(log)
	if err != nil {
		return nil, err
	}
	var all []part
	for _, one := range append([]*wheel{w}, w.with...) {
		p, err := l.wheel(one.project(arch), one.version)
		if err != nil {
			return nil, err
		}
		want := maps.Clone(one.libraries(arch))
		for _, file := range one.licences {
			want[file] = path.Join(licencesDir, path.Base(file))
		}
		dir, err := source.Tree(ctx, p, arch, want, fetch)
		if err != nil {
			return nil, err
		}
		all = append(all, part{one, p, dir})
	}
	return all, nil
}

// gathered returns a folder of the cache with all libraries of an engine.
func (w *wheel) gathered(ctx context.Context, parts []part, arch string, fetch bool, log io.Writer) (string, error) {
	if w.shim == nil {
		return together(parts, arch)
	}
	return w.shim.linked(ctx, parts, arch, fetch, log)
}

// together returns a folder of the cache with the libraries of all wheels.
func together(parts []part, arch string) (string, error) {
	if len(parts) == 1 {
		return parts[0].dir, nil
	}
	sum := sha256.New()
	for _, p := range parts {
		fmt.Fprintln(sum, filepath.Base(p.dir)) // holds the wheel's digest
	}
	dir := filepath.Join(filepath.Dir(parts[0].dir), "with-"+parts[0].name+"-"+hex.EncodeToString(sum.Sum(nil))[:16])
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	return dir, durable.MakeTree(dir, func(empty string) error { return linkAll(parts, arch, empty) })
}

// linkAll links the libraries of wheels into a folder.
func linkAll(parts []part, arch, dir string) error {
	for _, p := range parts {
		for _, name := range p.libraries(arch) {
			if err := os.Link(filepath.Join(p.dir, name), filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// names are the libraries' in the pack.
func (w *wheel) names(arch string) []string {
	var names []string
	for _, one := range append([]*wheel{w}, w.with...) {
		names = append(names, slices.Sorted(maps.Values(one.libraries(arch)))...)
	}
	if w.shim != nil {
		names = append(append(names, w.shim.empty...), w.shim.library())
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
		parts, err := r.wheel.parts(ctx, l, arch, fetch, log)
		dir := ""
		if err == nil {
			dir, err = r.wheel.gathered(ctx, parts, arch, fetch, log)
		}
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
		parts, err := w.parts(ctx, l, b.Arch, true, b.Log)
		if err != nil {
			return err
		}
		dir, err := w.gathered(ctx, parts, b.Arch, true, b.Log)
		if err != nil {
			return err
		}
		for _, name := range w.names(b.Arch) {
			if err := b.copy(filepath.Join(dir, name), filepath.Join(platformOf(b.Arch).libs, name)); err != nil {
				return err
			}
		}
		for i := range parts {
			if err := b.wheel(ctx, &parts[i]); err != nil {
				return err
			}
		}
		if w.shim == nil {
			return nil
		}
		inputs, err := compilerInputs(b.Arch)
		b.manifest.Inputs = append(b.manifest.Inputs, inputs...)
		return err
	}
}

// wheel records a wheel and its licences.
func (b *builder) wheel(ctx context.Context, p *part) error {
	file, err := p.pinned.For(b.Arch)
	if err != nil {
		return err
	}
	name := p.pinned.Name
	b.input("pypi:"+name, p.pinned.Version, "sha256:"+file.SHA256)
	for _, text := range p.licences {
		to := path.Join(licencesFolder, name+"."+path.Base(text))
		if err := b.copy(filepath.Join(p.dir, licencesDir, path.Base(text)), to); err != nil {
			return err
		}
		b.manifest.Licences = append(b.manifest.Licences, Licence{Component: name, SPDX: p.spdx, File: "/" + to})
	}
	if p.others == "" {
		return nil
	}
	source, err := pypi.Open(b.Log)
	if err != nil {
		return err
	}
	wheel, err := source.Wheel(ctx, p.pinned, b.Arch, true)
	if err != nil {
		return err
	}
	text, err := pypi.Texts(wheel, p.others)
	if err != nil {
		return err
	}
	return b.licence(name+"'s third parties", licence.Licence{}, name+"."+path.Base(p.others), text)
}

// numberedBy is the step that gives the pack the version of a wheel.
func numberedBy(w *wheel) func(*builder, context.Context, *lock) error {
	return func(b *builder, _ context.Context, l *lock) error {
		p, err := l.wheel(w.project(b.Arch), w.version)
		if err == nil {
			b.manifest.Version = p.Version + "-" + revision
		}
		return err
	}
}
