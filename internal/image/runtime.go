package image

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"oscine.dev/oscine/internal/debian"
)

// addRuntime puts crun on the root, with its dynamic loader and just the
// libraries that it and they name as needed.
func (c *content) addRuntime(ctx context.Context, source *debian.Source, arch string) error {
	tree, err := source.Tree(ctx, "runtime", arch)
	if err != nil {
		return err
	}
	owners, err := c.debs(tree, arch)
	if err != nil {
		return err
	}
	libs, loader := "usr/lib/x86_64-linux-gnu", "usr/lib64/ld-linux-x86-64.so.2"
	if arch == "arm64" {
		libs, loader = "usr/lib/aarch64-linux-gnu", "usr/lib/ld-linux-aarch64.so.1"
	}
	crun := filepath.Join(tree.Dir, "usr/bin/crun")
	if err := c.copy("usr/bin/crun", crun, "starts containers (OCI runtime)", owners["crun"], 0o755); err != nil {
		return err
	}
	loaderName := path.Base(loader)
	target, err := filepath.Rel(path.Dir(loader), path.Join(libs, loaderName))
	if err != nil {
		return err
	}
	c.link(loader, target, "the name by which programs ask for the dynamic loader", owners["libc6"])
	queue, seen := []string{"crun", loaderName}, map[string]bool{}
	for ; len(queue) > 0; queue = queue[1:] {
		name := queue[0]
		if seen[name] {
			continue
		}
		seen[name] = true
		file := filepath.Join(tree.Dir, libs, name)
		if name == "crun" {
			file = crun
		} else if err := c.library(path.Join(libs, name), file, owners); err != nil {
			return err
		}
		needed, err := neededBy(file)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		queue = append(queue, needed...)
	}
	// In today's C library they are empty, but programs that load a vendor's
	// library, as packs bring them, name them.
	for _, name := range []string{"libdl.so.2", "libpthread.so.0"} {
		file, err := filepath.EvalSymlinks(filepath.Join(tree.Dir, libs, name))
		if err != nil || seen[name] {
			continue
		}
		if err := c.copy(path.Join(libs, name), file, "a library that driver programs of packs name", owners["libc6"], 0o755); err != nil {
			return err
		}
	}
	return nil
}

// library copies a shared library under the name by which programs ask for it.
func (c *content) library(name, file string, owners map[string]string) error {
	real, err := filepath.EvalSymlinks(file)
	if err != nil {
		return fmt.Errorf("a library that crun needs is not in its packages: %w", err)
	}
	return c.copy(name, real, "a library that crun needs", owners[libraryOwner(path.Base(name))], 0o755)
}

// libraryOwner is the Debian package of a library that crun may need.
func libraryOwner(soname string) string {
	for pattern, owner := range map[string]string{
		"libcap.so*": "libcap2", "libseccomp.so*": "libseccomp2", "libsystemd.so*": "libsystemd0",
		"libyajl.so*": "libyajl2", "libgcc_s.so*": "libgcc-s1",
	} {
		if ok, err := path.Match(pattern, soname); ok && err == nil {
			return owner
		}
	}
	return "libc6"
}

func neededBy(file string) ([]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ImportedLibraries()
}

// debs records the packages of a tree as components and returns their IDs by
// name.
func (c *content) debs(tree *debian.Tree, arch string) (map[string]string, error) {
	ids := map[string]string{}
	for _, p := range tree.Packages {
		id, err := c.deb(tree, p)
		if err != nil {
			return nil, err
		}
		ids[p.Name] = id
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("no packages for %s in %s", arch, tree.Dir)
	}
	return ids, nil
}

// addCertificates joins Mozilla's root certificates into the file in which Go
// and OpenSSL look for them.
func (c *content) addCertificates(ctx context.Context, source *debian.Source, arch string) error {
	tree, err := source.Tree(ctx, "certificates", arch)
	if err != nil {
		return err
	}
	owners, err := c.debs(tree, arch)
	if err != nil {
		return err
	}
	var names []string
	root := os.DirFS(filepath.Join(tree.Dir, "usr/share/ca-certificates"))
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && path.Ext(name) == ".crt" {
			names = append(names, name)
		}
		return err
	})
	if err != nil || len(names) == 0 {
		return errors.Join(errors.New("the package ca-certificates holds no certificates"), err)
	}
	slices.Sort(names)
	var all bytes.Buffer
	for _, name := range names {
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		all.Write(append(bytes.TrimSpace(text), '\n'))
	}
	c.text("etc/ssl/certs/ca-certificates.crt", "certificate authorities, to check registries by", owners["ca-certificates"], all.Bytes())
	return nil
}
