package debian

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"oscine.dev/oscine/internal/pattern"
)

// Tool is a program that can be run: the host's own, or one of the cached
// bundle through the bundle's own dynamic loader, so that it needs nothing of
// the host but its kernel.
type Tool struct {
	Name   string   // such as qemu-system-x86_64
	Argv   []string // what comes before the caller's arguments
	Env    []string // NAME=value, to be added to the caller's environment
	Bundle string   // the bundle's folder, empty for the host's own program
}

// Command prepares to run the tool; the environment is this process's and the
// tool's.
func (t Tool) Command(ctx context.Context, args ...string) *exec.Cmd {
	argv := append(append([]string(nil), t.Argv...), args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), t.Env...)
	return cmd
}

// need is the oldest version of a host's own program that will do. Debian 12's
// QEMU corrupts busy x86-64 guests under emulation; mkfs.erofs writes
// reproducible packs from 1.8 on.
type need struct {
	major, minor int
	flag         string // prints the version
}

func needs(name string) need {
	switch {
	case strings.HasPrefix(name, "qemu-"):
		return need{10, 0, "--version"}
	case name == "mkfs.erofs" || name == "fsck.erofs" || name == "dump.erofs":
		return need{1, 8, "-V"}
	case name == "mke2fs":
		return need{1, 47, "-V"}
	}
	return need{}
}

// Clang is the [Tool] that compiles BPF and, with Linker, the shims of engines.
// Both always come from a bundle: what they write goes into programs and packs, the
// same bytes on every host.
const (
	Clang  = "clang-19"
	Linker = "ld.lld-19"
)

// Registry is the [Tool] that is a registry of OCI artifacts, for tests.
const Registry = "docker-registry"

// Tool finds a program: the host's own where it is new enough, else the one of
// the bundle for this machine's architecture, fetched and unpacked on first
// use. It knows QEMU, mkfs.erofs, mke2fs, sbverify, veritysetup, swtpm, tpm2-tools,
// [Clang], [Linker] and [Registry].
func (s *Source) Tool(ctx context.Context, name string) (Tool, error) {
	switch name {
	case Clang, Linker, Registry: // not the host's
	default:
		if path, ok := hostTool(ctx, name, needs(name)); ok {
			return Tool{Name: name, Argv: []string{path}}, nil
		}
	}
	return s.Bundled(ctx, name)
}

// Bundled is Tool with the bundle's program on every host, for one that writes what
// has to be the same bytes everywhere.
func (s *Source) Bundled(ctx context.Context, name string) (Tool, error) {
	bundle := "tools"
	if name == "swtpm" || strings.HasPrefix(name, "tpm2_") {
		bundle = "tpm"
	}
	switch name {
	case Clang, Linker:
		bundle = "clang"
	case Registry:
		bundle = "registry"
	}
	tree, err := s.Tree(ctx, bundle, runtime.GOARCH)
	if err != nil {
		return Tool{}, fmt.Errorf("find %s: %w", name, err)
	}
	for _, dir := range []string{"usr/bin", "usr/sbin"} {
		file := filepath.Join(tree.Dir, dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			return bundled(tree.Dir, name, file)
		}
	}
	return Tool{}, fmt.Errorf("find %s: neither this machine nor the bundle of tools has it", name)
}

// FindTool is [Source.Tool] of a freshly opened source.
func FindTool(ctx context.Context, name string) (Tool, error) {
	s, err := Open(os.Stderr)
	if err != nil {
		return Tool{}, err
	}
	return s.Tool(ctx, name)
}

func bundled(dir, name, file string) (Tool, error) {
	libs := filepath.Join(dir, "usr/lib", multiarch())
	loader := filepath.Join(libs, loaderName())
	if _, err := os.Stat(loader); err != nil {
		return Tool{}, fmt.Errorf("find %s: the bundle lacks its dynamic loader: %w", name, err)
	}
	t := Tool{
		Name: name, Bundle: dir,
		Argv: []string{loader, "--argv0", name, "--library-path", libs, file},
	}
	if name == "swtpm" {
		t.Argv[4] += ":" + filepath.Join(libs, "swtpm") // its own libraries
	}
	if strings.HasPrefix(name, "qemu-system-") {
		t.Argv = append(t.Argv, "-L", filepath.Join(dir, "usr/share/qemu"), "-L", filepath.Join(dir, "usr/share/seabios"),
			"-L", filepath.Join(dir, "usr/lib/ipxe/qemu"))
		t.Env = append(t.Env, "QEMU_MODULE_DIR="+filepath.Join(libs, "qemu"))
	}
	return t, nil
}

func multiarch() string {
	if runtime.GOARCH == "arm64" {
		return "aarch64-linux-gnu"
	}
	return "x86_64-linux-gnu"
}

func loaderName() string {
	if runtime.GOARCH == "arm64" {
		return "ld-linux-aarch64.so.1"
	}
	return "ld-linux-x86-64.so.2"
}

func hostTool(ctx context.Context, name string, want need) (string, bool) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err != nil {
			path, err = exec.LookPath(filepath.Join(dir, name))
		}
	}
	if err != nil {
		return "", false
	}
	if want.flag == "" {
		return path, true
	}
	out, err := exec.CommandContext(ctx, path, want.flag).CombinedOutput()
	if err != nil {
		return "", false
	}
	major, minor := versionIn(string(out))
	return path, major > want.major || major == want.major && minor >= want.minor
}

var dotted = pattern.New(`(\d+)\.(\d+)`)

// versionIn reads the first dotted number of a program's version line, zero
// when there is none.
func versionIn(out string) (major, minor int) {
	m := dotted.Regexp().FindStringSubmatch(out)
	if m == nil {
		return 0, 0
	}
	major, err1 := strconv.Atoi(m[1])
	minor, err2 := strconv.Atoi(m[2])
	if err1 != nil || err2 != nil {
		return 0, 0
	}
	return major, minor
}

// Firmware is UEFI firmware for QEMU machines: the code is mapped read-only,
// each machine keeps its own copy of the variables.
type Firmware struct {
	Code, Vars string // files
}

// Firmware finds UEFI firmware for machines of arch (amd64 or arm64), with
// Secure Boot or without: the host's own, else the bundle's. The variables are
// empty: Secure Boot is in setup mode. That of amd64 with Secure Boot needs a
// machine with system management mode.
func (s *Source) Firmware(ctx context.Context, arch string, secureBoot bool) (Firmware, error) {
	pair := [2]string{"usr/share/OVMF/OVMF_CODE_4M.fd", "usr/share/OVMF/OVMF_VARS_4M.fd"}
	switch {
	case arch == "amd64" && secureBoot:
		pair[0] = "usr/share/OVMF/OVMF_CODE_4M.secboot.fd"
	case arch == "amd64":
	case arch == "arm64" && secureBoot:
		pair = [2]string{"usr/share/AAVMF/AAVMF_CODE.secboot.fd", "usr/share/AAVMF/AAVMF_VARS.fd"}
	case arch == "arm64":
		pair = [2]string{"usr/share/AAVMF/AAVMF_CODE.no-secboot.fd", "usr/share/AAVMF/AAVMF_VARS.fd"}
	default:
		return Firmware{}, fmt.Errorf("no UEFI firmware is known for the architecture %q: use amd64 or arm64", arch)
	}
	if fw, err := firmwareIn("/", pair); err == nil {
		return fw, nil
	}
	tree, err := s.Tree(ctx, "tools", runtime.GOARCH)
	if err != nil {
		return Firmware{}, fmt.Errorf("find UEFI firmware for %s: %w", arch, err)
	}
	return firmwareIn(tree.Dir, pair)
}

func firmwareIn(dir string, pair [2]string) (Firmware, error) {
	fw := Firmware{Code: filepath.Join(dir, pair[0]), Vars: filepath.Join(dir, pair[1])}
	_, err1 := os.Stat(fw.Code)
	_, err2 := os.Stat(fw.Vars)
	return fw, errors.Join(err1, err2)
}
