package pack

import (
	"fmt"
	"os"
	"slices"
	"strings"
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

// CheckUse refuses to run a model by the pack with what it asked for: the
// names of its CDI devices and its memory limit in bytes, 0 for none.
func (m *Manifest) CheckUse(devices []string, memory int64) error {
	for _, kind := range m.Requires.Devices {
		if !slices.ContainsFunc(devices, func(d string) bool { return strings.HasPrefix(d, kind+"=") }) {
			return fmt.Errorf("%w: the pack %s needs a device %s: ask for one in spec.resources.devices", ErrNoEngine, m.Name, kind)
		}
	}
	if memory > 0 && memory < m.MemoryBytes {
		return fmt.Errorf("%w: a worker of the pack %s needs %d MiB before it has loaded a model, spec.resources.memory gives %d MiB",
			ErrNoEngine, m.Name, m.MemoryBytes>>20, memory>>20)
	}
	return nil
}
