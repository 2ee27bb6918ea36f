package pack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/pypi"
)

// shim is a library of C functions over an engine that has only a C++ API. It is
// compiled by a pinned compiler, so that every host makes the same bytes of it, for
// every architecture.
type shim struct {
	source   string   // in the folder shim, without its suffix; the library is liboscine_NAME.so
	standard string   // of C++
	headers  []string // folders in the wheel
	include  []string // where the compiler looks, below those
	define   []string
	// link are the libraries of the wheels that it loads, in their order.
	link func(arch string) []string
	// empty are names of libraries that models ask for and need nothing of; they are
	// made without content.
	empty []string
}

//go:embed shim
var shimSources embed.FS

const (
	compilerSet = "clang"
	sysrootSet  = "sysroot"
	headersDir  = "headers"
)

func (s *shim) library() string { return "liboscine_" + s.source + ".so" }

// linked returns a folder of the cache with the libraries of wheels and the shim
// compiled over them. Where the cache lacks it and fetch is false, the error wraps
// os.ErrNotExist.
func (s *shim) linked(ctx context.Context, parts []part, arch string, fetch bool, log io.Writer) (string, error) {
	id, err := s.digest(arch, parts)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(filepath.Dir(parts[0].dir), "shim-"+s.source+"-"+id)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if !fetch {
		return "", fmt.Errorf("the library %s is not in the cache: %w", s.library(), os.ErrNotExist)
	}
	return dir, durable.MakeTree(dir, func(empty string) error {
		if err := linkAll(parts, arch, empty); err != nil {
			return err
		}
		c, err := newCompiler(ctx, arch, log)
		if err != nil {
			return err
		}
		work := filepath.Join(empty, ".work")
		if err := s.unpack(ctx, parts[0].pinned, arch, work); err != nil {
			return err
		}
		fmt.Fprintf(log, "compile %s for %s\n", s.library(), arch)
		if err := c.build(ctx, s, work, empty); err != nil {
			return fmt.Errorf("compile %s for %s: %w", s.library(), arch, err)
		}
		return os.RemoveAll(work)
	})
}

// digest is of all that the folder is made of.
func (s *shim) digest(arch string, parts []part) (string, error) {
	lock, err := debian.Embedded()
	if err != nil {
		return "", err
	}
	target, err := lock.Set(sysrootSet, arch)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	if err := json.NewEncoder(sum).Encode([]any{target, s.link(arch), s.empty, s.define, s.include, s.standard, linkFlags(), compileFlags()}); err != nil {
		return "", err
	}
	for _, p := range parts {
		fmt.Fprintln(sum, filepath.Base(p.dir)) // holds the wheel's digest
	}
	for _, name := range s.files() {
		text, err := shimSources.ReadFile(path.Join("shim", name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(text), text)
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

func (s *shim) files() []string { return []string{"engine.h", s.source + ".cc"} }

// unpack puts the wheel's headers and the shim's source into a folder.
func (s *shim) unpack(ctx context.Context, p pypi.Package, arch, work string) error {
	source, err := pypi.Open(io.Discard)
	if err != nil {
		return err
	}
	wheel, err := source.Wheel(ctx, p, arch, true)
	if err != nil {
		return err
	}
	headers := filepath.Join(work, headersDir)
	if err := os.MkdirAll(headers, 0o755); err != nil {
		return err
	}
	ours := func(name string) bool {
		return slices.ContainsFunc(s.headers, func(folder string) bool { return strings.HasPrefix(name, folder+"/") })
	}
	if err := pypi.ExtractAll(wheel, headers, ours); err != nil {
		return err
	}
	for _, name := range s.files() {
		text, err := shimSources.ReadFile(path.Join("shim", name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(work, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// compiler compiles C++ for a target with clang and the target's own headers and
// libraries, all pinned.
type compiler struct {
	clang, linker         debian.Tool
	resources             string // clang's own headers
	triple, sysroot, libs string
	gcc                   string // the folder of GCC's part of the target
	loader                string
	arch                  string
}

func newCompiler(ctx context.Context, arch string, log io.Writer) (*compiler, error) {
	source, err := debian.Open(log)
	if err != nil {
		return nil, err
	}
	c := &compiler{arch: arch, triple: map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[arch]}
	if c.clang, err = source.Tool(ctx, debian.Clang); err != nil {
		return nil, err
	}
	if c.linker, err = source.Tool(ctx, debian.Linker); err != nil {
		return nil, err
	}
	tree, err := source.Tree(ctx, sysrootSet, arch)
	if err != nil {
		return nil, err
	}
	p := platformOf(arch)
	c.sysroot, c.libs = tree.Dir, filepath.Join(tree.Dir, p.libs)
	c.loader = filepath.Join(c.libs, p.loader)
	if c.gcc, err = only(filepath.Join(tree.Dir, "usr/lib/gcc", c.triple, "*")); err != nil {
		return nil, err
	}
	c.resources, err = only(filepath.Join(c.clang.Bundle, "usr/lib/llvm-*/lib/clang/*"))
	return c, err
}

// only is the one file of a pattern.
func only(pattern string) (string, error) {
	found, err := filepath.Glob(pattern)
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("%d files are like %s, one is expected", len(found), pattern)
	}
	if err != nil {
		return "", err
	}
	return found[0], nil
}

// Other people's headers use what they themselves call deprecated.
func compileFlags() []string {
	return []string{"-x", "c++", "-O2", "-fPIC", "-Wall", "-Werror", "-Wno-deprecated-declarations", "-ffile-prefix-map=.=shim"}
}

func linkFlags() []string {
	return []string{"-shared", "-s", "--build-id=none", "--eh-frame-hdr", "--hash-style=gnu", "-z", "relro", "-z", "now", "--no-undefined", "-rpath", "$ORIGIN"}
}

// build compiles and links a shim, in a folder with its source and headers, into
// the folder of the libraries that it needs.
func (c *compiler) build(ctx context.Context, s *shim, work, dir string) error {
	args := append(compileFlags(), "-std="+s.standard, "--target="+c.triple, "--sysroot="+c.sysroot, "--gcc-install-dir="+c.gcc, "-resource-dir", c.resources)
	for _, d := range s.define {
		args = append(args, "-D"+d)
	}
	for _, folder := range s.include {
		args = append(args, "-isystem", filepath.Join(headersDir, folder))
	}
	if err := runIn(c.clang.Command(ctx, append(args, "-c", s.source+".cc", "-o", "shim.o")...), work); err != nil {
		return err
	}
	for _, name := range s.empty {
		if err := c.empty(ctx, name, work, dir); err != nil {
			return err
		}
	}
	args = append(linkFlags(), "-soname", s.library(), "-o", filepath.Join(dir, s.library()),
		filepath.Join(c.gcc, "crtbeginS.o"), "shim.o", "-L", dir, "--no-as-needed")
	for _, name := range append(s.link(c.arch), s.empty...) {
		args = append(args, "-l:"+name)
	}
	args = append(args, "--as-needed")
	for _, name := range []string{"libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6"} {
		args = append(args, filepath.Join(c.libs, name))
	}
	args = append(args, c.loader, filepath.Join(c.gcc, "libgcc.a"), filepath.Join(c.gcc, "crtendS.o"))
	return runIn(c.linker.Command(ctx, args...), work)
}

// empty makes a library without content.
func (c *compiler) empty(ctx context.Context, name, work, dir string) error {
	if err := os.WriteFile(filepath.Join(work, "empty.cc"), nil, 0o644); err != nil {
		return err
	}
	if err := runIn(c.clang.Command(ctx, append(compileFlags(), "--target="+c.triple, "-c", "empty.cc", "-o", "empty.o")...), work); err != nil {
		return err
	}
	return runIn(c.linker.Command(ctx, "-shared", "-s", "--build-id=none", "--hash-style=gnu", "-soname", name, "-o", filepath.Join(dir, name), "empty.o"), work)
}

func runIn(cmd *exec.Cmd, dir string) error {
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// compilerInputs are the packages that the shim's target was compiled with: parts of
// their headers are in it.
func compilerInputs(arch string) ([]Input, error) {
	lock, err := debian.Embedded()
	if err != nil {
		return nil, err
	}
	set, err := lock.Set(sysrootSet, arch)
	if err != nil {
		return nil, err
	}
	byName := map[string]Input{}
	for _, p := range set.Packages {
		if strings.HasSuffix(p.Name, "-dev") {
			byName[p.Name] = Input{Name: "debian:" + p.Name, Version: p.Version, Digest: "sha256:" + p.SHA256}
		}
	}
	var list []Input
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		list = append(list, byName[name])
	}
	return list, nil
}
