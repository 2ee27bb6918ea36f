package kernelmodule

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/durable"
)

// Source is modules outside the kernel's own tree.
type Source struct {
	ID    string   // tells this source from others, such as a digest of it
	Dir   string   // with a Makefile; it is not changed
	Patch []byte   // that is applied first, as patch -p1 takes it; nil for none
	Names []string // of the modules that are wanted, such as nvidia-uvm
	// Arguments are those of make for a kernel.
	Arguments func(k *Kernel) []string
}

// Kernel is a pinned kernel as a module's Makefile sees it.
type Kernel struct {
	Release string // as uname -r prints it
	Arch    string // as the kernel names it: x86_64, arm64
	Headers string // folder of the headers that all kernels of the version share
	Output  string // folder of this kernel's own headers and configuration
}

// Compile compiles modules for the pinned kernel of a flavour and an architecture,
// or takes them from the cache, and returns a folder with NAME.ko of each, without
// debugging information and not signed, and the kernel. It needs the commands
// unshare, mount and chroot, and a kernel that allows this user namespaces of
// mounts.
func Compile(ctx context.Context, s Source, flavour, arch string, log io.Writer) (dir string, k *Kernel, err error) {
	packages, err := debian.Open(log)
	if err != nil {
		return "", nil, err
	}
	headers, err := packages.Tree(ctx, "headers-"+flavour, arch)
	if err != nil {
		return "", nil, err
	}
	tools, err := packages.Tree(ctx, "module-compiler", runtime.GOARCH)
	if err != nil {
		return "", nil, err
	}
	if k, err = kernelOf(headers.Dir, arch); err != nil {
		return "", nil, err
	}
	cache, err := debian.CacheDir()
	if err != nil {
		return "", nil, err
	}
	c := compilation{Source: s, kernel: k, arch: arch, headers: headers.Dir, tools: tools.Dir}
	dir = filepath.Join(cache, "modules", k.Release+"-"+c.digest())
	if _, err := os.Stat(dir); err == nil {
		return dir, k, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", nil, err
	}
	fmt.Fprintf(log, "compile %s for the kernel %s\n", strings.Join(s.Names, ", "), k.Release)
	return dir, k, durable.MakeTree(dir, func(empty string) error { return c.run(ctx, empty) })
}

// compilation is one run of the compiler.
type compilation struct {
	Source
	kernel         *Kernel
	arch           string
	headers, tools string // folders of unpacked packages
}

// digest tells compilations with different results apart.
func (c *compilation) digest() string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%q\n", []any{c.ID, c.Names, c.Arguments(c.kernel), filepath.Base(c.headers), filepath.Base(c.tools), script})
	sum.Write(c.Patch)
	return hex.EncodeToString(sum.Sum(nil))[:16]
}

var releaseRE = regexp.MustCompile(`^linux-headers-(\d.*-` + `(?:amd64|arm64))$`)

// kernelOf finds the kernel of unpacked headers.
func kernelOf(dir, arch string) (*Kernel, error) {
	entries, err := os.ReadDir(filepath.Join(dir, "usr/src"))
	if err != nil {
		return nil, fmt.Errorf("headers of the kernel: %w", err)
	}
	k := Kernel{Arch: map[string]string{"amd64": "x86_64", "arm64": "arm64"}[arch]}
	for _, e := range entries {
		if m := releaseRE.FindStringSubmatch(e.Name()); m != nil && e.IsDir() {
			k.Release, k.Output = m[1], "/usr/src/"+e.Name()
		} else if strings.HasSuffix(e.Name(), "-common") {
			k.Headers = "/usr/src/" + e.Name()
		}
	}
	if k.Release == "" || k.Headers == "" {
		return nil, fmt.Errorf("headers of the kernel: %s does not hold one kernel", dir)
	}
	return &k, nil
}

// triplet is the prefix of an architecture's compiler.
func triplet(arch string) string {
	return map[string]string{"amd64": "x86_64-linux-gnu-", "arm64": "aarch64-linux-gnu-"}[arch]
}

// script makes the root of the compiler, runs make in it and leaves no trace: the
// mounts end with its namespace. Its arguments: the root, the tools, the headers,
// the source, then the command.
const script = `set -e
root=$1 tools=$2 headers=$3 source=$4
shift 4
mount --bind "$tools/usr" "$root/usr"
mount --bind "$headers/usr/src" "$root/usr/src"
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
mount --bind "$source" "$root/work"
exec chroot "$root" /usr/bin/env -i PATH=/opt:/usr/bin HOME=/tmp LC_ALL=C KBUILD_BUILD_TIMESTAMP=@0 KBUILD_BUILD_USER=oscine KBUILD_BUILD_HOST=oscine /usr/bin/dash -c "$@"
`

// run compiles into an empty folder.
func (c *compilation) run(ctx context.Context, out string) error {
	root, work := filepath.Join(out, ".root"), filepath.Join(out, ".work")
	defer os.RemoveAll(root)
	defer os.RemoveAll(work)
	for _, name := range []string{"usr", "dev", "proc", "work", "tmp", "opt"} {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64", "opt/awk": "/usr/bin/mawk", "opt/sh": "/usr/bin/dash"} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			return err
		}
	}
	if err := copySource(c.Dir, work); err != nil {
		return fmt.Errorf("copy the source of modules: %w", err)
	}
	command := "cd /work && "
	if c.Patch != nil {
		if err := os.WriteFile(filepath.Join(work, "oscine.patch"), c.Patch, 0o644); err != nil {
			return err
		}
		command += "patch -p1 -s <oscine.patch && "
	}
	prefix := triplet(c.arch)
	command += `exec make -j"$(nproc)" "$@"`
	args := append([]string{
		"modules", "CC=" + prefix + "gcc-14", "LD=" + prefix + "ld", "OBJCOPY=" + prefix + "objcopy", "CROSS_COMPILE=" + prefix, "ARCH=" + c.kernel.Arch,
		"CONFIG_DEBUG_INFO_BTF_MODULES=", // that would need pahole, and nothing of Oscine traces them
	}, c.Arguments(c.kernel)...)
	namespaces := []string{"--mount"}
	if os.Geteuid() != 0 {
		namespaces = append(namespaces, "--user", "--map-root-user")
	}
	inRoot := func(command string, args ...string) error {
		all := append(append(append([]string{}, namespaces...), "sh", "-c", script, "sh", root, c.tools, c.headers, work, command, "dash"), args...)
		cmd := exec.CommandContext(ctx, "unshare", all...)
		text, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w\n%s", err, complaints(text))
		}
		return nil
	}
	if err := inRoot(command, args...); err != nil {
		return fmt.Errorf("compile %s for the kernel %s: %w", strings.Join(c.Names, ", "), c.kernel.Release, err)
	}
	for _, name := range c.Names {
		if err := inRoot(`exec "$@"`, prefix+"strip", "--strip-debug", "/work/"+name+".ko"); err != nil {
			return fmt.Errorf("strip the module %s: %w", name, err)
		}
		if err := durable.Rename(filepath.Join(work, name+".ko"), filepath.Join(out, name+".ko")); err != nil {
			return err
		}
	}
	return nil
}

// complaints are the lines of a compiler's output that say why it failed, else its
// end.
func complaints(text []byte) string {
	const most = 12
	var found []string
	for line := range bytes.Lines(text) {
		if l := string(bytes.TrimSpace(line)); (strings.Contains(l, "error:") || strings.Contains(l, "ERROR") || strings.Contains(l, "FAILED")) && len(found) < most {
			found = append(found, l)
		}
	}
	if len(found) > 0 {
		return strings.Join(found, "\n")
	}
	return string(bytes.TrimSpace(text[max(0, len(text)-1500):]))
}

// copySource copies a folder. What is linked and never written, the parts that
// their maker has compiled, is not copied a second time where the disk allows.
func copySource(from, to string) error {
	return filepath.WalkDir(from, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, file)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		switch {
		case d.IsDir():
			return os.MkdirAll(target, 0o755)
		case d.Type()&fs.ModeSymlink != 0:
			link, err := os.Readlink(file)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		case strings.HasSuffix(name, ".o_binary") && os.Link(file, target) == nil:
			return nil
		}
		return copyFile(file, target)
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, info.Mode().Perm()|0o200)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
