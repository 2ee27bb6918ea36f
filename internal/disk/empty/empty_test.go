package empty

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

func TestMake(t *testing.T) {
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
	erase := func() error { return Make(device, empty, func() { alive++ }) }
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
	if err := unpack(&order, empty, true); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(order), fmt.Sprint([]int64{5 << 20, int64(len(want)) - 64<<10, synced, 0, synced}); got != want {
		t.Errorf("written in the order %s, want %s", got, want)
	}
	order = nil
	if err := unpack(&order, empty, false); err != nil {
		t.Fatal(err)
	}
	if got, want := len(order), release.EmptyDataSize/superblock+2; got != want {
		t.Errorf("onto a device that may hold anything: %d steps, want %d", got, want)
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
