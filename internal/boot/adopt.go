package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"oscine.dev/oscine/internal/bounded"
	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/release"
)

const (
	machineFile    = "/var/lib/oscine/" + release.MachineFile
	maxMachineFile = 1 << 20
)

// adopting is the suffix of a Machine file that was copied from the ESP and may
// still lie there.
const adopting = ".adopting"

// adoptMachineFile moves the Machine file of the mounted ESP to target, all of
// it or nothing: it holds the node's key, and anyone with the disk or a copy
// of the ESP can read FAT. No such file is no error; too large a one is.
//
// Power may fail at any point. The copy is whole under another name before the
// ESP is touched, and gets its own name when the ESP holds nothing any more.
func adoptMachineFile(esp, target string) (adopted bool, err error) {
	source, copied := filepath.Join(esp, release.ESPMachine), target+adopting
	if !exists(copied) {
		content, err := readMachineFile(source)
		if content == nil || err != nil {
			return false, err
		}
		if err := durable.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return false, err
		}
		if err := durable.WriteFile(copied, content, 0o600); err != nil {
			return false, err
		}
	}
	wiped := wipe(source)
	if err := durable.Rename(copied, target); err != nil {
		return false, errors.Join(err, wiped)
	}
	if wiped != nil {
		return true, fmt.Errorf("remove the secrets in /%s by hand: %w", release.ESPMachine, wiped)
	}
	return true, nil
}

// readMachineFile returns nil where there is no file.
func readMachineFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := bounded.ReadAll(f, maxMachineFile)
	if err != nil {
		return nil, fmt.Errorf("/%s: %w", release.ESPMachine, err)
	}
	return append([]byte{}, content...), nil
}

// wipe removes a file of the ESP for good.
func wipe(name string) error {
	if err := durable.Wipe(name); err != nil {
		return err
	}
	return linux.FlushFileSystem(filepath.Dir(name))
}
