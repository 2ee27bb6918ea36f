package journal

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// newSmallDisk mounts a file system with so many inodes, its top folder among
// them.
func newSmallDisk(t *testing.T, options string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a file system needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestRotationWithoutAnInode(t *testing.T) {
	dir := newSmallDisk(t, "size=4m,nr_inodes=2")
	path := filepath.Join(dir, "a.log")
	w := open(t, path, minBytes)
	if err := os.WriteFile(filepath.Join(dir, "full"), nil, 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("got %v, want a full disk", err)
	}
	for range 3 * minBytes / 100 {
		add(t, w, strings.Repeat("x", 100))
	}
	add(t, w, "last")
	if got := texts(t, path, Query{Tail: 1}); len(got) != 1 || !strings.HasSuffix(got[0], "last") {
		t.Errorf("got %q, want the last line", got)
	}
}

func TestJournalThatCannotBeOpened(t *testing.T) {
	dir := newSmallDisk(t, "size=4m,nr_inodes=2")
	in := filepath.Join(dir, "in the way")
	if err := os.WriteFile(in, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "a.log")
	w := open(t, path, 0)
	for range 3 {
		if err := w.Append(Line{Time: noon, Text: "lost"}); err == nil || !strings.Contains(err.Error(), "open") {
			t.Errorf("got %v, want the reason", err)
		}
	}
	if err := os.Remove(in); err != nil {
		t.Fatal(err)
	}
	w.failed = noon // a moment ago no more
	add(t, w, "kept")
	if got := texts(t, path, Query{}); len(got) != 1 || !strings.HasSuffix(got[0], "kept") {
		t.Errorf("got %q", got)
	}
}
