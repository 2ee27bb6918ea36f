package boot

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"oscine.dev/oscine/internal/release"
)

func TestEraseData(t *testing.T) {
	dir := t.TempDir()
	device, empty := filepath.Join(dir, "device"), filepath.Join(dir, "empty.gz")
	want := make([]byte, release.EmptyDataSize)
	copy(want[5<<20:], "an inode")
	copy(want[len(want)-3:], "end")
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	alive := 0
	erase := func() error { return eraseData(device, empty, func() { alive++ }) }
	if err := erase(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a device: got %v", err)
	}
	if err := os.WriteFile(device, bytes.Repeat([]byte("secret"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := erase(); err == nil {
		t.Error("a device that is too small was erased")
	}
	if err := os.Truncate(device, release.EmptyDataSize+4096); err != nil {
		t.Fatal(err)
	}
	if err := erase(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without an empty file system: got %v", err)
	}
	for what, content := range map[string][]byte{"damaged": []byte("x"), "too short": packed.Bytes()[:packed.Len()/2]} {
		if err := os.WriteFile(empty, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := erase(); err == nil {
			t.Errorf("an empty file system that is %s was taken", what)
		}
	}
	if err := os.WriteFile(empty, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	var order recorder
	if err := unpackEmpty(&order, empty); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(order), fmt.Sprint([]int64{5 << 20, int64(len(want)) - 64<<10, synced, 0, synced}); got != want {
		t.Errorf("written in the order %s, want %s", got, want)
	}
	alive = 0
	if err := erase(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(device)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[:len(want)], want) {
		t.Error("the device holds something else")
	}
	if alive < 4 {
		t.Errorf("the watchdog was fed %d times", alive)
	}
}

// recorder notes where is written, and when that is synced.
type recorder []int64

const synced = -1

func (r *recorder) WriteAt(b []byte, at int64) (int, error) {
	*r = append(*r, at)
	return len(b), nil
}

func (r *recorder) Sync() error {
	*r = append(*r, synced)
	return nil
}

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
