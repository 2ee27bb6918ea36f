package kmod

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/linux"
)

// Driver is a driver whose modules are no part of the image: a pack brings them.
type Driver struct {
	Name, Version string
	Dir           string   // of NAME.ko
	Firmware      string   // folder where the kernel is to look for firmware first
	Modules       []string // in the order in which they are loaded
	Devices       []string // patterns of the identities of its devices
}

// Try has the kernel check a module, and returns why it would not load it: a signature
// by a key that it does not trust, another kernel. A module that finds no device has
// passed; one that finds a device stays loaded.
func (k *Kernel) Try(file string) error {
	err := k.Insert(file)
	switch name := filepath.Base(file); {
	case errors.Is(err, unix.ENODEV), err == nil:
		return nil
	case errors.Is(err, unix.EKEYREJECTED), errors.Is(err, unix.ENOKEY), errors.Is(err, unix.EPERM), errors.Is(err, unix.EBADMSG):
		return fmt.Errorf("the kernel does not trust the signature of %s (%w): sign it with the db key of this machine's image (oscine pack build --secureboot FOLDER), whose certificate the firmware must have enrolled", name, err)
	case errors.Is(err, unix.ENOEXEC):
		return fmt.Errorf("%s is no module for the running kernel (%w): see oscine dmesg", name, err)
	default:
		return fmt.Errorf("the kernel does not take %s: %w: see oscine dmesg", name, err)
	}
}

// Present reports whether a device of the driver is on this machine.
func (k *Kernel) Present(d *Driver) bool {
	files, err := filepath.Glob(filepath.Join(k.Root, "sys/bus/*/devices/*/modalias"))
	if err != nil {
		return false
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		identity := strings.TrimSpace(string(raw))
		if err == nil && slices.ContainsFunc(d.Devices, func(pattern string) bool { ok, err := path.Match(pattern, identity); return ok && err == nil }) {
			return true
		}
	}
	return false
}

// loadedVersion is the version of a driver that is loaded, "" for none.
func (k *Kernel) loadedVersion(d *Driver) string {
	dir := filepath.Join(k.Sys, linux.ModuleName(d.Modules[0]))
	if _, err := os.Stat(dir); err != nil {
		return ""
	}
	raw, err := os.ReadFile(filepath.Join(dir, "version"))
	if err != nil {
		return "of an unknown version"
	}
	return strings.TrimSpace(string(raw))
}

// State says in words whether a driver is loaded, and why not.
func (k *Kernel) State(d *Driver) string {
	switch running := k.loadedVersion(d); {
	case running == d.Version:
		return "loaded"
	case running != "":
		return fmt.Sprintf("the kernel runs %s %s, and its devices cannot be used with %s until the machine restarts", d.Name, running, d.Version)
	case !k.Present(d):
		return fmt.Sprintf("no device of %s on this machine; its modules stay unloaded", d.Name)
	}
	return "not loaded"
}

// LoadDriver loads the modules of a driver if one of its devices is there, and makes
// its device nodes. What is loaded already stays; another version of it is an error.
func (k *Kernel) LoadDriver(d *Driver) error {
	running := k.loadedVersion(d)
	if running == "" && !k.Present(d) {
		return nil
	}
	if running != "" && running != d.Version {
		return errors.New(k.State(d))
	}
	if err := os.WriteFile(filepath.Join(k.Sys, "firmware_class/parameters/path"), []byte(d.Firmware), 0o644); err != nil {
		return fmt.Errorf("tell the kernel where the firmware of %s lies: %w", d.Name, err)
	}
	for _, name := range d.Modules {
		if _, err := os.Stat(filepath.Join(k.Sys, linux.ModuleName(name))); err == nil {
			continue
		}
		if err := k.Insert(filepath.Join(d.Dir, name+".ko")); err != nil {
			return fmt.Errorf("the driver %s %s: %w: see oscine dmesg", d.Name, d.Version, err)
		}
	}
	if d.Name == nvidia {
		return k.nvidiaNodes()
	}
	return nil
}

// UnloadDriver unloads what LoadDriver has loaded. A module that is in use stays until
// the machine restarts.
func (k *Kernel) UnloadDriver(d *Driver) error {
	for _, name := range slices.Backward(d.Modules) {
		switch err := k.Unload(linux.ModuleName(name)); {
		case errors.Is(err, fs.ErrNotExist):
		case errors.Is(err, unix.EWOULDBLOCK), errors.Is(err, unix.EBUSY):
			return fmt.Errorf("the module %s of the driver %s is in use, and stays until the machine restarts", name, d.Name)
		case err != nil:
			return fmt.Errorf("unload the module %s of the driver %s: %w", name, d.Name, err)
		}
	}
	return nil
}

// nvidia is the driver that makes no device nodes: a program of NVIDIA's does elsewhere
// (nvidia-modprobe).
const nvidia = "nvidia"

// Numbers of NVIDIA's device nodes (nv-chardev-numbers.h).
const (
	nvidiaMajor   = 195
	nvidiaControl = 255
)

// nvidiaNodes makes the device nodes of the GPUs that the driver has found.
func (k *Kernel) nvidiaNodes() error {
	nodes := map[string][2]uint32{"nvidiactl": {nvidiaMajor, nvidiaControl}}
	files, err := filepath.Glob(filepath.Join(k.Root, "proc/driver/nvidia/gpus/*/information"))
	if err != nil {
		return err
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("find the device nodes of NVIDIA's GPUs: %w", err)
		}
		for line := range strings.Lines(string(raw)) {
			key, value, _ := strings.Cut(line, ":")
			if minor, err := strconv.ParseUint(strings.TrimSpace(value), 10, 8); key == "Device Minor" && err == nil {
				nodes[fmt.Sprintf("nvidia%d", minor)] = [2]uint32{nvidiaMajor, uint32(minor)}
			}
		}
	}
	raw, err := os.ReadFile(filepath.Join(k.Root, "proc/devices"))
	if err != nil {
		return fmt.Errorf("find the device nodes of NVIDIA's GPUs: %w", err)
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) == 2 && f[1] == "nvidia-uvm" {
			if major, err := strconv.ParseUint(f[0], 10, 12); err == nil {
				nodes["nvidia-uvm"], nodes["nvidia-uvm-tools"] = [2]uint32{uint32(major), 0}, [2]uint32{uint32(major), 1}
			}
		}
	}
	for name, number := range nodes {
		file := filepath.Join(k.Root, "dev", name)
		err := k.Node(file, number[0], number[1])
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make the device node %s: %w", file, err)
		}
	}
	return nil
}

// mknod makes the node of a character device that everybody may open, as NVIDIA's own
// program does: the cgroups of containers say who may.
func mknod(file string, major, minor uint32) error {
	if err := unix.Mknod(file, unix.S_IFCHR|0o666, int(unix.Mkdev(major, minor))); err != nil {
		return err
	}
	return os.Chmod(file, 0o666)
}
