package kmod

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/object"
)

// Kernel is a running kernel.
type Kernel struct {
	// Dir is the folder of its modules, with modules.dep and modules.builtin as
	// depmod(8) writes them.
	Dir string
	// Sys is where the modules in use are, /sys/module.
	Sys string
	// Load loads a module, and those that it needs, with parameters "NAME=VALUE".
	Load func(name string, parameters []string) error
	// Unload unloads a module; unix.EWOULDBLOCK says that it is in use.
	Unload func(name string) error

	// Of drivers that packs bring: Root has sys, proc and dev, Insert loads one file and
	// Node makes the node of a character device.
	Root   string
	Insert func(file string) error
	Node   func(file string, major, minor uint32) error
}

// Running is the kernel of this machine.
func Running() *Kernel {
	return &Kernel{
		Dir: linux.ModulesDir(), Sys: "/sys/module", Load: modprobe, Unload: func(name string) error { return unix.DeleteModule(name, unix.O_NONBLOCK) },
		Root: "/", Insert: func(file string) error { return linux.LoadModule(file, "") }, Node: mknod,
	}
}

// modprobe runs the program that the kernel itself runs for a module.
func modprobe(name string, parameters []string) error {
	path, err := os.ReadFile("/proc/sys/kernel/modprobe")
	if err != nil {
		return err
	}
	out, err := exec.Command(strings.TrimSpace(string(path)), append([]string{"-q", "--", name}, parameters...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w %s", strings.TrimSpace(string(path)), err, bytes.TrimSpace(out))
	}
	return nil
}

// Check finds modules that the kernel does not have.
func (k *Kernel) Check(wanted []object.KernelModule) error {
	if len(wanted) == 0 {
		return nil
	}
	names, err := k.names("modules.dep", "modules.builtin")
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range wanted {
		if !names[linux.ModuleName(m.Name)] {
			errs = append(errs, fmt.Errorf("%s: the image has no such kernel module", m.Name))
		}
	}
	return errors.Join(errs...)
}

// names reads lists of the kernel's modules.
func (k *Kernel) names(lists ...string) (map[string]bool, error) {
	names := map[string]bool{}
	for _, list := range lists {
		raw, err := os.ReadFile(filepath.Join(k.Dir, list))
		if err != nil {
			return nil, fmt.Errorf("list the kernel's modules: %w", err)
		}
		for line := range strings.Lines(string(raw)) {
			file, _, _ := strings.Cut(strings.TrimSpace(line), ":")
			names[linux.ModuleName(file)] = true
		}
	}
	return names, nil
}

// Set loads the modules in order. Those that an earlier call has loaded, and that are
// no longer wanted, are unloaded; the file memory, which must not outlive the kernel,
// lists them. An error of one module keeps none of the others back.
func (k *Kernel) Set(memory string, wanted []object.KernelModule) error {
	var loaded []string
	if raw, err := os.ReadFile(memory); err == nil {
		if err := json.Unmarshal(raw, &loaded); err != nil {
			return fmt.Errorf("read %s: %w", memory, err)
		}
	}
	var errs []error
	for _, name := range slices.Backward(slices.Clone(loaded)) { // one may need those before it
		if slices.ContainsFunc(wanted, func(m object.KernelModule) bool { return linux.ModuleName(m.Name) == name }) {
			continue
		}
		switch err := k.Unload(name); {
		case errors.Is(err, unix.EWOULDBLOCK), errors.Is(err, unix.EBUSY):
			errs = append(errs, fmt.Errorf("%s: is in use, and stays until the machine restarts", name))
			continue
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, fmt.Errorf("unload %s: %w", name, err))
			continue
		}
		loaded = slices.DeleteFunc(loaded, func(other string) bool { return other == name })
	}
	for _, m := range wanted {
		ours, err := k.set(m)
		if ours {
			loaded = append(loaded, linux.ModuleName(m.Name))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.Name, err))
		}
	}
	raw, err := json.Marshal(loaded)
	if err == nil {
		err = durable.WriteFile(memory, raw, 0o600)
	}
	return errors.Join(append(errs, err)...)
}

// set loads a module, or changes the parameters of one that is there. It reports
// whether it has loaded it.
func (k *Kernel) set(m object.KernelModule) (loaded bool, err error) {
	dir := filepath.Join(k.Sys, linux.ModuleName(m.Name))
	if _, err := os.Stat(dir); err != nil {
		if builtin, err := k.names("modules.builtin"); err != nil || builtin[linux.ModuleName(m.Name)] && len(m.Parameters) == 0 {
			return false, err // the kernel shows only those that have parameters
		}
		var parameters []string
		for _, p := range slices.Sorted(maps.Keys(m.Parameters)) {
			parameters = append(parameters, p+"="+m.Parameters[p])
		}
		if err := k.Load(m.Name, parameters); err != nil {
			return false, fmt.Errorf("load the kernel module: %w", err)
		}
		return true, nil
	}
	var errs []error
	for _, p := range slices.Sorted(maps.Keys(m.Parameters)) {
		errs = append(errs, setParameter(filepath.Join(dir, "parameters", p), m.Parameters[p]))
	}
	return false, errors.Join(errs...)
}

func setParameter(file, value string) error {
	raw, err := os.ReadFile(file)
	current := strings.TrimSpace(string(raw))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("parameter %s: the module is loaded already and does not show it", filepath.Base(file))
	case err == nil && sameValue(current, value):
		return nil
	}
	if err := os.WriteFile(file, []byte(value), 0); err != nil {
		return fmt.Errorf("parameter %s is %s and cannot be changed while the module is loaded (%w)", filepath.Base(file), current, err)
	}
	return nil
}

// sameValue also knows the ways to write a bool, which the kernel shows as Y or N.
func sameValue(shown, value string) bool {
	switch {
	case shown == "Y":
		return slices.Contains([]string{"y", "Y", "1", "on", "true"}, value)
	case shown == "N":
		return slices.Contains([]string{"n", "N", "0", "off", "false"}, value)
	}
	return shown == value
}
