package pack

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/release"
)

// checkCPU refuses a pack whose programs this machine's CPUs cannot run.
func (m *Manifest) checkCPU(cpuinfo string) error {
	if len(m.Requires.CPU) == 0 {
		return nil
	}
	text, err := os.ReadFile(cpuinfo)
	if err != nil {
		return fmt.Errorf("find what the CPUs can do: %w", err)
	}
	if missing := missingFeatures(string(text), m.Requires.CPU); len(missing) > 0 {
		return fmt.Errorf("%w: pack %s needs %s, which this node's CPUs lack", ErrNotPack, m.Name, strings.Join(missing, ", "))
	}
	return nil
}

// missingFeatures returns those of the wanted features that some CPU lacks, by
// the text of /proc/cpuinfo.
func missingFeatures(cpuinfo string, wanted []string) []string {
	missing, found := []string{}, false
	for line := range strings.Lines(cpuinfo) {
		key, value, _ := strings.Cut(line, ":")
		if key = strings.TrimSpace(key); key != "flags" && key != "Features" {
			continue
		}
		found = true
		have := strings.Fields(value)
		for _, f := range wanted {
			if !slices.Contains(have, f) && !slices.Contains(missing, f) {
				missing = append(missing, f)
			}
		}
	}
	if !found {
		return wanted
	}
	return missing
}

// Device is a device that a model has.
type Device struct {
	Name    string // in CDI, such as oscine.dev/gpu=gpu0
	Driver  string // of the kernel, such as nvidia; "" where unknown
	Version string // of that driver, such as 580.95.05; "" where unknown
}

// CheckUse refuses to run a model by the pack with what it asked for: its devices,
// and its memory limit in bytes, 0 for none.
func (m *Manifest) CheckUse(devices []Device, memory int64) error {
	for _, kind := range m.Requires.Devices {
		of := slices.DeleteFunc(slices.Clone(devices), func(d Device) bool { return !strings.HasPrefix(d.Name, kind+"=") })
		if len(of) == 0 {
			return fmt.Errorf("%w: the pack %s needs a device %s: ask for one in spec.resources.devices", ErrNoEngine, m.Name, kind)
		}
		for _, d := range of {
			if err := m.checkDriver(d); err != nil {
				return err
			}
		}
	}
	if memory > 0 && memory < m.MemoryBytes {
		return fmt.Errorf("%w: a worker of the pack %s needs %d MiB before it has loaded a model, spec.resources.memory gives %d MiB",
			ErrNoEngine, m.Name, m.MemoryBytes>>20, memory>>20)
	}
	return nil
}

// checkDriver refuses a device whose kernel driver the pack's libraries cannot use.
func (m *Manifest) checkDriver(d Device) error {
	if len(m.Requires.KernelDrivers) == 0 {
		return nil
	}
	_, id, _ := strings.Cut(d.Name, "=")
	least, ok := m.Requires.KernelDrivers[d.Driver]
	switch {
	case !ok:
		var wanted []string
		for _, name := range slices.Sorted(maps.Keys(m.Requires.KernelDrivers)) {
			wanted = append(wanted, name+" "+m.Requires.KernelDrivers[name])
		}
		return fmt.Errorf("%w: the pack %s needs a device with the kernel driver %s or newer; %s has the driver %q: choose another device with a selector, or another engine",
			ErrNoEngine, m.Name, strings.Join(wanted, ", "), id, d.Driver)
	case d.Version == "":
		return nil // the worker finds out
	case release.CompareVersions(d.Version, least) < 0:
		return fmt.Errorf("%w: the pack %s needs the kernel driver %s %s or newer; %s has %s: install a newer driver on the node (see oscine hardware --explain %s)",
			ErrNoEngine, m.Name, d.Driver, least, id, d.Version, id)
	}
	return nil
}
