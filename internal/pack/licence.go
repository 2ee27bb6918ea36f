package pack

import (
	"cmp"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/licence"
)

// licencesFolder is where a pack has the texts of its licences.
const licencesFolder = "usr/share/licences"

// debianLicences records the packages of a tree, with their licences and the
// texts of these.
func (b *builder) debianLicences(tree *debian.Tree) error {
	for _, pkg := range tree.Packages {
		b.input("debian:"+pkg.Name, pkg.Version, "sha256:"+pkg.SHA256)
		doc, text, err := tree.Copyright(pkg)
		if err != nil {
			return err
		}
		l, err := licence.OfCopyright(text)
		if err != nil {
			return fmt.Errorf("licence of %s: %w", pkg.Name, err)
		}
		// Packages of one source may share a file.
		if err := b.licence(pkg.Name, l, path.Base(path.Dir(doc)), text); err != nil {
			return err
		}
	}
	return nil
}

// goLicences records the licences of Go's library and of the modules in a
// program that was just built from source.
func (b *builder) goLicences(ctx context.Context, program, source string) error {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return err
	}
	modules, err := licence.OpenModules(ctx, source)
	if err != nil {
		return err
	}
	std, err := modules.Find(licence.Std, strings.TrimPrefix(info.GoVersion, "go"))
	if err != nil {
		return err
	}
	b.manifest.Licences = append(b.manifest.Licences, Licence{Component: "the Go library", SPDX: std.Expression})
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		l, err := modules.Find(m.Path, m.Version)
		if err != nil {
			return err
		}
		// What SPDX does not list keeps its text.
		file, text := "", ""
		for _, ref := range l.References() {
			file = strings.ReplaceAll(m.Path, "/", "-")
			text += l.Texts[ref].Text + "\n"
		}
		if err := b.licence(m.Path, l, file, text); err != nil {
			return err
		}
	}
	return nil
}

// licence records the licence of a component, with its text in a file of that
// name unless it is empty.
func (b *builder) licence(component string, l licence.Licence, file, text string) error {
	entry := Licence{Component: component, SPDX: cmp.Or(l.Expression, "NOASSERTION")}
	if file != "" {
		if err := os.MkdirAll(filepath.Join(b.root, licencesFolder), 0o755); err != nil {
			return err
		}
		name := path.Join(licencesFolder, file)
		entry.File = "/" + name
		f, err := os.OpenFile(filepath.Join(b.root, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err == nil {
			_, err = f.WriteString(text)
			if err := errors.Join(err, f.Close()); err != nil {
				return err
			}
		}
	}
	b.manifest.Licences = append(b.manifest.Licences, entry)
	return nil
}
