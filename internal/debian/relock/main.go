package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/debian"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "relock:", err)
		os.Exit(1)
	}
}

const (
	lockFile  = "internal/debian/lock.json"
	stable    = "trixie"
	backports = "trixie-backports"
	rolling   = "sid"
)

// tools are what hosts may lack: machines, image and pack building, and the
// programs by others that tests compare with.
var tools = []string{
	"qemu-system-x86", "qemu-system-arm", "qemu-system-data", "qemu-utils", "ovmf", "qemu-efi-aarch64",
	"erofs-utils", "e2fsprogs", "sbsigntool", "cryptsetup-bin",
}

// trust are a TPM for machines, and the tools of others that tests check quotes
// with.
var trust = []string{"swtpm", "tpm2-tools"}

// registry is the registry of OCI artifacts that tests push to.
var registry = []string{"docker-registry"}

// compiler is what compiles the BPF programs, and with its linker and a set sysroot
// the shims of engines, for any architecture.
var compiler = []string{"clang-19", "lld-19"}

// sysroot is the headers and libraries of a target that C++ is compiled for: those
// of an old libstdc++, so that what is compiled also runs on hosts that have one.
var sysroot = []string{"libstdc++-12-dev"}

// unneededBySysroot are what only sanitizers and programs link.
var unneededBySysroot = []string{"libgomp1", "libitm1", "libatomic1", "libasan8", "liblsan0", "libtsan2", "libubsan1", "libhwasan0", "libquadmath0",
	"libcrypt-dev", "libcrypt1", "rpcsvc-proto", "libc-dev-bin"}

// fonts are what the demo writes its pictures in: none of models/digits was
// trained with them.
var fonts = []string{"fonts-courier-prime", "fonts-hack", "fonts-comfortaa", "fonts-jetbrains-mono", "fonts-open-sans"}

// unneeded are dependencies that serve installation or hardware which the
// programs never touch here.
var unneeded = []string{"debconf", "dpkg", "tar", "perl-base", "adduser", "passwd", "logsave", "ucf", "openssl", "libsasl2-modules-db", "sensible-utils",
	"libc6-dev", "libstdc++-14-dev", "libgcc-14-dev", "libobjc-14-dev", "libclang-rt-19-dev", "libclang1-19", "binutils", "llvm-19-linker-tools", "tpm-udev"}

// llama is the server of language models. Debian's stable release has none.
var llama = []string{"llama.cpp-tools"}

// python runs the tools that optimise models, which are written in it.
var python = []string{"python3.13-minimal", "libpython3.13-stdlib", "libstdc++6"}

// unneededByPython are what its modules for terminals, databases and the network
// need, and programs that install it.
var unneededByPython = []string{"dpkg", "tar", "debconf", "media-types", "netbase", "tzdata", "libncursesw6", "libtinfo6", "libreadline8t64", "readline-common",
	"libsqlite3-0", "libdb5.3t64", "libnsl2", "libtirpc3t64", "libgssapi-krb5-2", "libssl3t64", "ca-certificates"}

// llamaVulkan is the same with the library that computes on GPUs.
var llamaVulkan = append(slices.Clone(llama), "libggml0-backend-vulkan")

// llamaTools are what quantises language models and measures them.
var llamaTools = append(slices.Clone(llama), "llama.cpp-tools-extra")

// moduleTools compile kernel modules, in a root of their own: with the compiler that
// Debian's kernels are built with, which is also the one for the other architecture.
var moduleTools = []string{"make", "dash", "coreutils", "sed", "grep", "mawk", "findutils", "patch", "libelf1t64", "libssl3t64"}

// crossCompilers are the compiler of kernel modules for the other architecture.
var crossCompilers = map[string]string{"amd64": "gcc-14-aarch64-linux-gnu", "arm64": "gcc-14-x86-64-linux-gnu"}

// unneededByModules are libraries of programs, which modules are not, and what
// installs packages.
var unneededByModules = []string{"dpkg", "tar", "debconf", "perl-base", "libasan8", "liblsan0", "libtsan2", "libubsan1", "libhwasan0", "libitm1", "libatomic1", "libgomp1", "libquadmath0",
	"libasan8-arm64-cross", "liblsan0-arm64-cross", "libtsan2-arm64-cross", "libubsan1-arm64-cross", "libhwasan0-arm64-cross", "libitm1-arm64-cross", "libatomic1-arm64-cross", "libgomp1-arm64-cross",
	"libasan8-amd64-cross", "liblsan0-amd64-cross", "libtsan2-amd64-cross", "libubsan1-amd64-cross", "libhwasan0-amd64-cross", "libitm1-amd64-cross", "libatomic1-amd64-cross", "libgomp1-amd64-cross", "libquadmath0-amd64-cross",
	"libc6-dev", "libcc1-0", "libgprofng0", "openssl-provider-legacy", "libdebuginfod1t64"}

// nvidia is NVIDIA's driver for computing without a display: its open kernel modules,
// the firmware of its GPUs, and the libraries that programs load.
var nvidia = []string{"nvidia-open-kernel-dkms", "firmware-nvidia-gsp", "libnvidia-ml1", "libcuda1", "libnvidia-ptxjitcompiler1", "libnvidia-nvvm4",
	"libegl-nvidia0", "libnvidia-eglcore", "libnvidia-glvkspirv", "libnvidia-gpucomp"}

// unneededByLlama are what the server neither loads nor starts.
var unneededByLlama = []string{"debconf", "wget", "libc-gconv-modules-extra", "openssl-provider-legacy"}

func run(ctx context.Context, args []string, log io.Writer) error {
	flags := flag.NewFlagSet("relock", flag.ContinueOnError)
	kernel := flags.String("kernel", "7.2.12+deb13", "`version` of the kernels")
	only := flags.String("only", "", "renew only these `sets`, separated by commas, and keep the others")
	if err := flags.Parse(args); err != nil {
		return err
	}
	mirror, err := debian.Mirror(ctx)
	if err != nil {
		return err
	}
	arches := []string{"amd64", "arm64"}
	fmt.Fprintln(log, "read the indexes of", mirror)
	index, err := debian.ReadIndex(ctx, mirror, []string{stable, backports, rolling}, arches)
	if err != nil {
		return err
	}
	old, err := debian.Embedded()
	if err != nil {
		return err
	}
	var lock debian.Lock
	for _, arch := range arches {
		sets, err := setsOf(index, arch, *kernel)
		if err != nil {
			return err
		}
		for _, set := range sets {
			if kept, err := old.Set(set.Name, arch); err == nil && *only != "" && !slices.Contains(strings.Split(*only, ","), set.Name) {
				set = kept
			}
			lock.Sets = append(lock.Sets, set)
		}
	}
	text, err := json.MarshalIndent(lock, "", " ")
	if err != nil {
		return err
	}
	fmt.Fprintln(log, "write", lockFile)
	return os.WriteFile(lockFile, append(text, '\n'), 0o644)
}

func setsOf(index *debian.Index, arch, kernel string) ([]debian.Set, error) {
	var sets []debian.Set
	for flavour, suffix := range map[string]string{"cloud": "-cloud-" + arch, "metal": "-" + arch, "rt": "-rt-" + arch} {
		set := debian.Set{Name: "kernel-" + flavour, Arch: arch}
		for _, part := range []string{"linux-binary-", "linux-modules-", "linux-base-"} {
			name := part + kernel + suffix
			r, ok := index.Newest(regexp.MustCompile(regexp.QuoteMeta(name)), arch, backports)
			if !ok {
				return nil, fmt.Errorf("%s is not in %s", name, backports)
			}
			set.Packages = append(set.Packages, r.Package)
		}
		sets = append(sets, set)
		headers, err := listed(index, "headers-"+flavour, arch, backports, "linux-headers-"+kernel+suffix, "linux-headers-"+kernel+"-common")
		if err != nil {
			return nil, err
		}
		sets = append(sets, headers)
	}
	driver, err := listed(index, "nvidia-driver", arch, rolling, nvidia...)
	if err != nil {
		return nil, err
	}
	modules, err := moduleCompiler(index, arch, kernel)
	if err != nil {
		return nil, err
	}
	sets = append(sets, driver, modules)
	skip := func(name string) bool { return slices.Contains(unneeded, name) }
	for name, roots := range map[string][]string{"boot": {"systemd-boot-efi"}, "runtime": {"crun"}, "certificates": {"ca-certificates"}, "engine": {"libstdc++6"}, "engine-cuda": {"libstdc++6", "zlib1g"}, "fonts": fonts, "tools": tools, "tpm": trust, "clang": compiler, "registry": registry} {
		packages, err := index.Closure(arch, stable, roots, skip)
		if err != nil {
			return nil, err
		}
		sets = append(sets, debian.Set{Name: name, Arch: arch, Packages: packages})
	}
	for _, s := range []struct {
		name, suite     string
		roots, unneeded []string
	}{{"llama.cpp", rolling, llama, unneededByLlama}, {"llama.cpp-vulkan", rolling, llamaVulkan, unneededByLlama}, {"optimize-gguf", rolling, llamaTools, unneededByLlama}, {"python", stable, python, unneededByPython}, {"sysroot", stable, sysroot, unneededBySysroot}} {
		packages, err := index.Closure(arch, s.suite, s.roots, func(name string) bool { return slices.Contains(s.unneeded, name) })
		if err != nil {
			return nil, err
		}
		sets = append(sets, debian.Set{Name: s.name, Arch: arch, Packages: packages})
	}
	slices.SortFunc(sets, func(a, b debian.Set) int { return strings.Compare(a.Name, b.Name) })
	return sets, nil
}

// listed is a set of just the packages that are named.
func listed(index *debian.Index, name, arch, suite string, packages ...string) (debian.Set, error) {
	set := debian.Set{Name: name, Arch: arch}
	for _, p := range packages {
		r, ok := index.Newest(regexp.MustCompile(regexp.QuoteMeta(p)), arch, suite)
		if !ok {
			return set, fmt.Errorf("%s is not in %s for %s", p, suite, arch)
		}
		set.Packages = append(set.Packages, r.Package)
	}
	return set, nil
}

// moduleCompiler is what compiles modules of a kernel on a host of an architecture.
func moduleCompiler(index *debian.Index, arch, kernel string) (debian.Set, error) {
	set, err := listed(index, "module-compiler", arch, backports, "linux-kbuild-"+kernel)
	if err != nil {
		return set, err
	}
	roots := append([]string{"gcc-14", crossCompilers[arch]}, moduleTools...)
	packages, err := index.Closure(arch, stable, roots, func(name string) bool { return slices.Contains(unneededByModules, name) })
	set.Packages = append(set.Packages, packages...)
	return set, err
}
