package linux

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// logOf is a pipe in the place of the kernel's log.
func logOf(t *testing.T, records ...string) (path string, w *os.File) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "kmsg")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Skipf("needs FIFOs in the temporary directory: %v", err)
	}
	w, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	for _, r := range records {
		if _, err := w.WriteString(r); err != nil {
			t.Fatal(err)
		}
	}
	return path, w
}

func TestKernelLog(t *testing.T) {
	path, _ := logOf(t, "6,1,2,-;one\n")
	var got []string
	note := func(record string) error { got = append(got, record); return nil }
	if err := KernelLog(t.Context(), path, KernelLogOptions{}, note); err != nil || !slices.Equal(got, []string{"6,1,2,-;one\n"}) {
		t.Errorf("all that there is: %q, %v", got, err)
	}
	if err := KernelLog(t.Context(), filepath.Join(t.TempDir(), "none"), KernelLogOptions{}, note); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a log that is not there: %v", err)
	}
	stop := errors.New("enough")
	path, _ = logOf(t, "6,1,2,-;one\n")
	if err := KernelLog(t.Context(), path, KernelLogOptions{}, func(string) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("a reader that has enough: %v", err)
	}
}

// TestKernelLogIsWhole has a reader that takes longer than any deadline over the
// whole log would allow.
func TestKernelLogIsWhole(t *testing.T) {
	const count = 40
	path, w := logOf(t, "6,0,2,-;line\n")
	n := 1
	err := KernelLog(t.Context(), path, KernelLogOptions{}, func(string) error {
		time.Sleep(5 * time.Millisecond)
		if n < count { // a pipe keeps no records apart: one at a time
			n++
			_, err := w.WriteString("6,0,2,-;line\n")
			return err
		}
		return nil
	})
	if err != nil || n != count {
		t.Errorf("got %d of %d records, %v", n, count, err)
	}
}

func TestKernelLogFollows(t *testing.T) {
	path, w := logOf(t)
	ctx, cancel := context.WithCancel(t.Context())
	records, ended := make(chan string), make(chan error)
	go func() {
		ended <- KernelLog(ctx, path, KernelLogOptions{Follow: true}, func(record string) error { records <- record; return nil })
	}()
	if _, err := w.WriteString("6,2,3,-;two\n"); err != nil {
		t.Fatal(err)
	}
	if got := <-records; got != "6,2,3,-;two\n" {
		t.Errorf("got %q", got)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	// A log that ends while it is followed is not as it should be.
	file := filepath.Join(t.TempDir(), "kmsg")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := KernelLog(t.Context(), file, KernelLogOptions{Follow: true}, nil); err == nil {
		t.Error("the end of a log that is followed is no error")
	}
}
