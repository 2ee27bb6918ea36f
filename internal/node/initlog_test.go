package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// kernelLog is a pipe in the place of the kernel's log.
func kernelLog(t *testing.T) (path string, w *os.File) {
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
	return path, w
}

func TestInitLogFollows(t *testing.T) {
	path, w := kernelLog(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lines, ended := make(chan LogLine, 1), make(chan error, 1)
	go func() {
		ended <- initLog(ctx, path, LogQuery{Follow: true}, func(l LogLine) error { lines <- l; return nil })
	}()
	var err error
	for _, record := range []string{"13,7,5000000,-;oscine-init: oscined is ready\n", "6,8,6000000,-;eth0: link\n", "11,9,7000000,-;oscine-init: it ended\n"} {
		if _, err := w.WriteString(record); err != nil {
			t.Fatal(err)
		}
		if record[0] == '6' { // another's: not shown, and to be read by itself
			for left := 1; left > 0; {
				if left, err = unix.IoctlGetInt(int(w.Fd()), unix.TIOCINQ); err != nil {
					t.Fatal(err)
				}
			}
			continue
		}
		got := <-lines
		if want := map[string]string{"oscined is ready": "notice", "it ended": "err"}[got.Text]; got.Stream != want {
			t.Errorf("got %+v", got)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestParseInitRecord(t *testing.T) {
	booted, err := bootTime()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, record := range []string{"13,7,5,-;oscine-init: one\n", "6,8,6,-;two\n", "13,9,7,-;oscine-init: three\n KEY=value\n", "broken"} {
		if line, ok := parseInitRecord(record, booted); ok {
			got = append(got, line.Text)
		}
	}
	if diff := cmp.Diff([]string{"one", "three"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if sequence("13,7,5,-;x") != 7 || sequence("13;x") != -1 || sequence("1,b,c") != -1 {
		t.Error("the number of a record")
	}
}
