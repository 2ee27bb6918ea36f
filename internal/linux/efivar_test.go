package linux

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func FuzzReadEFIString(f *testing.F) {
	f.Add([]byte{6, 0, 0, 0, 'a', 0, 0, 0})
	f.Add([]byte{6, 0, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "Name-"+LoaderVendor), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := ReadEFIString(dir, "Name", LoaderVendor)
		if err == nil && len(s) > 3*maxEFIString {
			t.Errorf("%d bytes from %d", len(s), len(raw))
		}
	})
}

func TestReadEFIString(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadEFIString(dir, "Name", LoaderVendor); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: got %v", err)
	}
	raw := []byte{6, 0, 0, 0, 'a', 0, 0xe9, 0, 0x3d, 0xd8, 0x00, 0xde, 0, 0, 'x', 0}
	if err := os.WriteFile(filepath.Join(dir, "Name-"+LoaderVendor), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := ReadEFIString(dir, "Name", LoaderVendor); s != "aé😀" || err != nil {
		t.Errorf("got %q, %v", s, err)
	}
}
