package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/release"
)

// setEFI writes an EFI variable as efivarfs shows it: attributes, then UTF-16.
func setEFI(t *testing.T, dir, name, value string) {
	t.Helper()
	raw := []byte{6, 0, 0, 0}
	for _, u := range append(utf16.Encode([]rune(value)), 0) {
		raw = binary.LittleEndian.AppendUint16(raw, u)
	}
	if err := os.WriteFile(filepath.Join(dir, name+"-"+linux.LoaderVendor), raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestReadBooted(t *testing.T) {
	dir := t.TempDir()
	if diff := cmp.Diff(booted{}, readBooted(dir), cmp.AllowUnexported(booted{})); diff != "" {
		t.Errorf("without variables (-want +got):\n%s", diff)
	}
	setEFI(t, dir, "StubImageIdentifier", `\EFI\Linux\oscine_0.1+2-1.efi`)
	setEFI(t, dir, "LoaderDevicePartUUID", "ABCD-EF")
	want := booted{
		image: "EFI/Linux/oscine_0.1+2-1.efi", entry: release.Entry{Title: "oscine_0.1", Counted: true, Left: 2, Done: 1}, espUUID: "abcd-ef",
	}
	got := readBooted(dir)
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(booted{})); diff != "" {
		t.Errorf("after a boot loader (-want +got):\n%s", diff)
	}
	setEFI(t, dir, "StubImageIdentifier", `\..\..\..\etc\passwd`)
	if got := readBooted(dir).image; strings.Contains(got, "..") {
		t.Errorf("path outside the ESP: %s", got)
	}
}

func TestRenameImage(t *testing.T) {
	esp := t.TempDir()
	dir := filepath.Join(esp, "EFI/Linux")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "o+2-1.efi"), []byte("image"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := renameImage(esp, "EFI/Linux/o+2-1.efi", "o.efi"); err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(filepath.Join(dir, "o.efi")); string(raw) != "image" || err != nil {
		t.Errorf("got %q, %v", raw, err)
	}
	if err := renameImage(esp, "EFI/Linux/o+2-1.efi", "o.efi"); err == nil {
		t.Error("an absent image was renamed")
	}
}

func TestAttempts(t *testing.T) {
	data := t.TempDir()
	c := counter{data: data}
	if n := c.attempts("a.efi"); n != 0 {
		t.Errorf("first: got %d", n)
	}
	if err := c.record("a.efi", 2); err != nil {
		t.Fatal(err)
	}
	if n := c.attempts("a.efi"); n != 2 {
		t.Errorf("got %d, want 2", n)
	}
	if n := c.attempts("b.efi"); n != 0 {
		t.Errorf("another image: got %d", n)
	}
	for _, spoilt := range []string{"", "x a.efi", "-1 a.efi", "3"} {
		if err := os.WriteFile(filepath.Join(data, attemptsFile), []byte(spoilt), 0o600); err != nil {
			t.Fatal(err)
		}
		if n := c.attempts("a.efi"); n != 0 {
			t.Errorf("%q: got %d", spoilt, n)
		}
	}
}

// An encrypted partition has a block for them, and nothing else of it changes.
func TestAttemptsBesideEncryptedData(t *testing.T) {
	device := filepath.Join(t.TempDir(), "device")
	before := bytes.Repeat([]byte{7}, release.EncryptedStart)
	if err := os.WriteFile(device, before, 0o600); err != nil {
		t.Fatal(err)
	}
	c := counter{device: device}
	if n := c.attempts("a.efi"); n != 0 {
		t.Errorf("first: got %d", n)
	}
	for _, n := range []int{1, 10, 2, 0} {
		if err := c.record("a.efi", n); err != nil {
			t.Fatal(err)
		}
		if got := c.attempts("a.efi"); got != n {
			t.Errorf("got %d, want %d", got, n)
		}
	}
	if err := c.record(strings.Repeat("a", countBlock), 1); err == nil {
		t.Error("a name that does not fit was taken")
	}
	after, err := os.ReadFile(device)
	if err != nil {
		t.Fatal(err)
	}
	copy(after[release.EncryptedCount:], before[:countBlock])
	if !bytes.Equal(after, before) {
		t.Error("something else was changed")
	}
}

// The counter can be written on a disk that has not one inode left.
func TestAttemptsOnAFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a file system needs root")
	}
	data := t.TempDir()
	if err := unix.Mount("tmpfs", data, "tmpfs", 0, "size=64k,nr_inodes=4"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(data, 0); err != nil {
			t.Error(err)
		}
	}()
	c := counter{data: data}
	if err := c.record("a-longer-name.efi", 0); err == nil {
		err = os.WriteFile(filepath.Join(data, "fill"), nil, 0o600)
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("got %v, want a full disk", err)
		}
	}
	for _, n := range []int{1, 2, 0} {
		if err := c.record("a.efi", n); err != nil {
			t.Fatal(err)
		}
		if got := c.attempts("a.efi"); got != n {
			t.Errorf("got %d, want %d", got, n)
		}
	}
}
