package systemtest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/image"
	"oscine.dev/oscine/internal/kernelmodule"
	"oscine.dev/oscine/internal/machine"
	"oscine.dev/oscine/internal/machine/machinetest"
	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/secureboot"
	"oscine.dev/oscine/internal/uki"
)

// strangeModule is a module of the pinned kernel that is not on the image, without
// Debian's signature, and the kernel's release.
func strangeModule(t *testing.T) (module []byte, kernel string) {
	t.Helper()
	source, err := debian.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := source.Tree(t.Context(), "kernel-cloud", runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(tree.Dir, "usr/lib/modules/*/kernel/net/core/pktgen.ko.xz"))
	if err != nil || len(files) != 1 {
		t.Fatalf("pktgen.ko.xz: %v, %v", files, err)
	}
	f, err := os.Open(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	plain, err := xz.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if module, err = io.ReadAll(plain); err != nil {
		t.Fatal(err)
	}
	body, signed := bytes.CutSuffix(module, []byte("~Module signature appended~\n"))
	if !signed {
		t.Fatal("Debian's module has no signature")
	}
	size := binary.BigEndian.Uint32(body[len(body)-4:])
	rest, _, _ := strings.Cut(strings.TrimPrefix(files[0], tree.Dir+"/usr/lib/modules/"), "/")
	return body[:len(body)-12-int(size)], rest
}

// modulePack makes a pack with pktgen as a driver of the devices of QEMU, for a kernel.
func modulePack(t *testing.T, module []byte, kernel string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		filepath.Join(pack.ModulesPath, kernel, "pktgen.ko"): module,
		filepath.Join(pack.DriversPath, "pktgen"):            []byte("#!/bin/false\n"),
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	manifest, err := json.Marshal(pack.Manifest{
		Name: "packets", Version: "2.75-1", Arch: runtime.GOARCH, Drivers: []string{"pktgen"},
		Kernel: &pack.KernelDriver{Name: "pktgen", Version: "2.75", Kernels: []string{kernel}, Modules: []string{"pktgen"}, Devices: []string{"pci:v00001AF4d*sv*sd*bc*sc*i*"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, pack.ManifestPath), string(manifest))
	file := filepath.Join(t.TempDir(), "packets.erofs")
	if err := pack.Write(t.Context(), dir, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestKernelDriver boots a machine under Secure Boot and gives it packs with modules of
// the kernel: it takes those that the db key of its image signed for its kernel, and
// refuses others with the reason. NVIDIA's driver, which finds no GPU, is among them where
// it may be compiled.
func TestKernelDriver(t *testing.T) {
	machinetest.Need(t)
	dir := t.TempDir()
	keys, signed := filepath.Join(dir, "keys"), filepath.Join(dir, "signed.img")
	if _, err := secureboot.Generate(keys, "Test", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := image.Build(t.Context(), image.Options{Secure: keys, Out: signed}); err != nil {
		t.Fatal(err)
	}
	key, _, err := secureboot.Load(keys)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := uki.NewKey("a stranger")
	if err != nil {
		t.Fatal(err)
	}
	plain, kernel := strangeModule(t)
	sign := func(key *uki.Key) []byte {
		module, err := kernelmodule.Sign(plain, key)
		if err != nil {
			t.Fatal(err)
		}
		return module
	}
	n := newTestNode(t, dir, loopback(machinetest.APIPort))
	config, err := os.ReadFile(n.machineFile())
	if err != nil {
		t.Fatal(err)
	}
	m := machinetest.Start(t, machine.Options{Image: signed, SecureBoot: true, Config: config})
	m.WaitConsole(`oscine-init: slot root-a is good`, 2*later)
	n = openNode(t, dir, m)

	n.refuse([]string{"pack", "install", modulePack(t, plain, kernel)}, "does not trust the signature of pktgen.ko", "oscine pack build --secureboot")
	n.refuse([]string{"pack", "install", modulePack(t, sign(stranger), kernel)}, "does not trust the signature of pktgen.ko")
	n.refuse([]string{"pack", "install", modulePack(t, sign(key), kernel+"x")}, "has modules of the driver pktgen for the kernel "+kernel+"x, and none for "+kernel, "oscine pack build")
	n.run("pack", "install", modulePack(t, sign(key), kernel))
	n.eventually("the module is loaded", soon, func() (string, bool) {
		got := n.run("pack", "inspect", "packets")
		return got, regexp.MustCompile(`(?m)^state +loaded$`).MatchString(got)
	})
	n.run("pack", "remove", "packets")
	if got := n.run("events"); strings.Contains(got, "DriverStays") {
		t.Errorf("the module was not unloaded:\n%s", got)
	}
	t.Run("nvidia", func(t *testing.T) {
		if os.Getenv("OSCINE_DRIVER_TESTS") == "" {
			t.Skip("compiles NVIDIA's modules (oscine pack build nvidia-driver): set OSCINE_DRIVER_TESTS=1, or use make test-driver")
		}
		built, err := pack.Build(t.Context(), pack.BuildOptions{Name: "nvidia-driver", Arch: runtime.GOARCH, Flavours: []string{"cloud"}, Secure: keys, AcceptLicence: true, Out: filepath.Join(dir, "packs"), Source: ".", Log: os.Stderr})
		if err != nil {
			t.Fatal(err)
		}
		n.run("pack", "install", built.File)
		if got := n.run("pack", "inspect", "nvidia-driver"); !strings.Contains(got, "no device of nvidia on this machine; its modules stay unloaded") {
			t.Errorf("without a GPU:\n%s", got)
		}
		if got := n.run("dmesg"); !strings.Contains(got, "NVRM: No NVIDIA GPU found") { // so the kernel took the module
			t.Errorf("the kernel's log:\n%s", got)
		}
	})
}
