package sysctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/durable"
)

// Kernel is where the parameters are.
const Kernel = "/proc/sys"

// Check finds parameters that the kernel below root does not have, or does not let anybody set.
func Check(root string, wanted map[string]string) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		info, err := os.Stat(file(root, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			errs = append(errs, fmt.Errorf("%s: this kernel has no such parameter", name))
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		case !info.Mode().IsRegular() || info.Mode()&0o200 == 0:
			errs = append(errs, fmt.Errorf("%s: cannot be set", name))
		}
	}
	return errors.Join(errs...)
}

// Set gives parameters their values. Those that an earlier call has set, and that are no longer wanted, get back
// what they were before; the file memory, which must not outlive the kernel, remembers that. An error of one
// parameter keeps none of the others back.
func Set(root, memory string, wanted map[string]string) error {
	before := map[string]string{}
	if raw, err := os.ReadFile(memory); err == nil {
		if err := json.Unmarshal(raw, &before); err != nil {
			return fmt.Errorf("read %s: %w", memory, err)
		}
	}
	var errs []error
	for name, value := range before {
		if _, still := wanted[name]; still {
			continue
		}
		if err := write(root, name, value); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(before, name)
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if _, known := before[name]; known {
			continue
		}
		raw, err := os.ReadFile(file(root, name))
		if err != nil {
			errs = append(errs, fmt.Errorf("kernel parameter %s: %w", name, err))
			continue
		}
		before[name] = strings.TrimSpace(string(raw))
	}
	raw, err := json.Marshal(before)
	if err != nil {
		return err
	}
	// Remembered first: a value that is set without is never taken back.
	if err := durable.WriteFile(memory, raw, 0o600); err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if _, known := before[name]; known {
			errs = append(errs, write(root, name, wanted[name]))
		}
	}
	return errors.Join(errs...)
}

func write(root, name, value string) error {
	if err := os.WriteFile(file(root, name), []byte(value+"\n"), 0o644); err != nil {
		return fmt.Errorf("set the kernel parameter %s to %s: %w", name, value, err)
	}
	return nil
}

// file is where a parameter lies; its name has no empty part and no slash.
func file(root, name string) string {
	return filepath.Join(root, strings.ReplaceAll(name, ".", "/"))
}
