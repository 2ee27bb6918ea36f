package boot

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"oscine.dev/oscine/internal/release"
)

// Without state or with a mark, the ESP is asked.
func TestInUse(t *testing.T) {
	data := t.TempDir()
	if inUse(data) {
		t.Error("an empty partition is in use")
	}
	state := filepath.Join(data, stateDir)
	if err := os.MkdirAll(state, 0o755); err != nil {
		t.Fatal(err)
	}
	if !inUse(data) {
		t.Error("a partition with state is not in use")
	}
	if err := os.WriteFile(filepath.Join(state, release.ResetMark), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if inUse(data) {
		t.Error("a partition that is to be erased is in use")
	}
}

// Only the data partition of an image, before its first use, spares its first boot the ESP.
func TestIsNew(t *testing.T) {
	data := t.TempDir()
	node := filepath.Join(t.TempDir(), "node")
	for _, test := range []struct {
		label string
		want  bool
	}{{release.ImageLabel, true}, {"oscine-data", false}, {"", false}} {
		device := make([]byte, 4096)
		copy(device[1024+120:], test.label)
		if err := os.WriteFile(node, device, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := isNew(data, node); got != test.want {
			t.Errorf("label %q: got %t", test.label, got)
		}
	}
	if err := errors.Join(os.WriteFile(node, make([]byte, 1024), 0o600), os.MkdirAll(filepath.Join(data, stateDir), 0o755)); err != nil {
		t.Fatal(err)
	}
	if isNew(data, node) {
		t.Error("a device without a superblock is new")
	}
	device := make([]byte, 4096)
	copy(device[1024+120:], release.ImageLabel)
	if err := os.WriteFile(node, device, 0o600); err != nil {
		t.Fatal(err)
	}
	if isNew(data, node) {
		t.Error("a partition with state is new")
	}
}

// The mark is gone with the Machine that still waited, and nothing else is.
func TestForgetReset(t *testing.T) {
	esp := t.TempDir()
	for _, name := range []string{release.ESPReset, release.ESPMachine, "EFI/BOOT/BOOTX64.EFI"} {
		file := filepath.Join(esp, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte("x"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := forgetReset(esp); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{release.ESPReset: false, release.ESPMachine: false, "EFI/BOOT/BOOTX64.EFI": true} {
		if exists(filepath.Join(esp, name)) != want {
			t.Errorf("%s is there: %t", name, !want)
		}
	}
	if err := forgetReset(esp); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a mark: got %v", err)
	}
}

// A node that was about to encrypt its data partition leaves a mark which counts only
// until that is encrypted; a person's counts always.
func TestMarkedForReset(t *testing.T) {
	esp := t.TempDir()
	if markedForReset(esp, false) {
		t.Error("marked without a mark")
	}
	mark := filepath.Join(esp, release.ESPReset)
	if err := os.MkdirAll(filepath.Dir(mark), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		text   string
		locked bool
		want   bool
	}{{"", false, true}, {"", true, true}, {release.ESPResetKeeps, false, true}, {release.ESPResetKeeps, true, false}} {
		if err := os.WriteFile(mark, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := markedForReset(esp, test.locked); got != test.want {
			t.Errorf("%+v: got %t", test, got)
		}
	}
}
