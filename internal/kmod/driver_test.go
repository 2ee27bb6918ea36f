package kmod

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// gpuMachine is a machine with one device, whose kernel takes every module.
func gpuMachine(t *testing.T, identity string) (k *Kernel, inserted *[]string) {
	t.Helper()
	root := t.TempDir()
	inserted = &[]string{}
	k = &Kernel{
		Root: root, Sys: filepath.Join(root, "sys/module"),
		Insert: func(file string) error {
			*inserted = append(*inserted, filepath.Base(file))
			dir := filepath.Join(root, "sys/module", strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".ko"), "-", "_"))
			return errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "version"), []byte("550.163.01\n"), 0o644))
		},
		Unload: func(name string) error { return os.RemoveAll(filepath.Join(root, "sys/module", name)) },
		Node: func(file string, major, minor uint32) error {
			return os.WriteFile(file, fmt.Appendf(nil, "%d:%d", major, minor), 0o600)
		},
	}
	for name, text := range map[string]string{
		"sys/bus/pci/devices/0000:01:00.0/modalias": identity + "\n",
		"sys/module/firmware_class/parameters/path": "",
		"proc/devices": "Character devices:\n195 nvidia\n510 nvidia-uvm\n",
		"proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t NVIDIA H200\nDevice Minor: \t 3\n",
		"dev/null": "",
	} {
		file := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return k, inserted
}

func gpuDriver() *Driver {
	return &Driver{
		Name: "nvidia", Version: "550.163.01", Dir: "/pack/modules", Firmware: "/pack/firmware", Modules: []string{"nvidia", "nvidia-uvm"},
		Devices: []string{"pci:v000010DEd*sv*sd*bc03sc02i00*"},
	}
}

const gpuIdentity = "pci:v000010DEd00002335sv000010DEsd000018BEbc03sc02i00"

func TestLoadDriver(t *testing.T) {
	k, inserted := gpuMachine(t, gpuIdentity)
	d := gpuDriver()
	if got := k.State(d); got != "not loaded" {
		t.Errorf("before: %q", got)
	}
	for range 2 { // the second finds it loaded
		if err := k.LoadDriver(d); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"nvidia.ko", "nvidia-uvm.ko"}; !slices.Equal(*inserted, want) {
		t.Errorf("loaded %v, want %v", *inserted, want)
	}
	for file, want := range map[string]string{
		"sys/module/firmware_class/parameters/path": "/pack/firmware",
		"dev/nvidiactl": "195:255", "dev/nvidia3": "195:3", "dev/nvidia-uvm": "510:0", "dev/nvidia-uvm-tools": "510:1",
	} {
		if got, err := os.ReadFile(filepath.Join(k.Root, file)); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", file, got, err, want)
		}
	}
	if got := k.State(d); got != "loaded" {
		t.Errorf("after: %q", got)
	}
	next := gpuDriver()
	next.Version = "580.95.05"
	if err := k.LoadDriver(next); err == nil || !strings.Contains(err.Error(), "the kernel runs nvidia 550.163.01, and its devices cannot be used with 580.95.05 until the machine restarts") {
		t.Errorf("another version: %v", err)
	}
	if err := k.UnloadDriver(d); err != nil {
		t.Fatal(err)
	}
	if got := k.State(d); got != "not loaded" {
		t.Errorf("unloaded: %q", got)
	}
	k.Unload = func(string) error { return unix.EWOULDBLOCK }
	if err := k.UnloadDriver(d); err == nil || !strings.Contains(err.Error(), "stays until the machine restarts") {
		t.Errorf("in use: %v", err)
	}
}

func TestLoadDriverWithoutDevice(t *testing.T) {
	k, inserted := gpuMachine(t, "pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00")
	if err := k.LoadDriver(gpuDriver()); err != nil || len(*inserted) > 0 {
		t.Errorf("got %v, loaded %v", err, *inserted)
	}
	if got, want := k.State(gpuDriver()), "no device of nvidia on this machine; its modules stay unloaded"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTry(t *testing.T) {
	for err, want := range map[error]string{
		nil: "", unix.ENODEV: "",
		unix.EKEYREJECTED: "does not trust the signature", unix.ENOKEY: "does not trust the signature", unix.EPERM: "does not trust the signature",
		unix.ENOEXEC: "no module for the running kernel", unix.ENOMEM: "does not take",
	} {
		k := &Kernel{Insert: func(string) error {
			if err == nil {
				return nil
			}
			return fmt.Errorf("load: %w", err)
		}}
		got := k.Try("/pack/nvidia.ko")
		if (got == nil) != (want == "") || got != nil && !strings.Contains(got.Error(), want) {
			t.Errorf("%v: got %v, want %q", err, got, want)
		}
	}
}
