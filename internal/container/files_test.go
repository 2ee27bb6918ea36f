package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Files lie in memory, are the container's user's alone, are rewritten while it
// runs, and leave nothing behind.
func TestFilesInMemory(t *testing.T) {
	config := testConfig(t)
	importProbe(t, config)
	r := openRuntime(t, config)
	spec := Spec{ID: "files", Image: probeName, User: "1234:99", Files: []Files{{Target: "/run/secrets/tls", Content: map[string][]byte{"tls.key": []byte("first"), "gone": []byte("x")}}},
		Args: []string{"own", "/run/secrets/tls/tls.key", "read", "/run/secrets/tls/tls.key", "write", "/run/secrets/tls/tls.key", "write", "/run/secrets/tls/new"}}
	said, _ := output(t, r, spec)
	for _, want := range []string{"own 1234 99\n", "read first <nil>\n", "write open /run/secrets/tls/tls.key: ", "write open /run/secrets/tls/new: read-only file system"} {
		if !strings.Contains(said, want) {
			t.Errorf("want %q in\n%s", want, said)
		}
	}
	if err := r.Delete(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}

	spec.Args = []string{"serve"}
	if err := r.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	before, err := r.Status(t.Context(), spec.ID)
	if err != nil {
		t.Fatal(err)
	}
	dir := filesAt(r.filesDir(spec.ID), 0)
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		t.Errorf("the files are not in memory: %#x, %v", fs.Type, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "tls.key")); err != nil || info.Mode() != 0o400 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	spec.Files = []Files{{Target: "/run/secrets/tls", Content: map[string][]byte{"tls.key": []byte("second")}}}
	if err := r.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	var seen strings.Builder
	code, err := r.Exec(t.Context(), spec.ID, Exec{Args: []string{"/probe", "read", "/run/secrets/tls/tls.key", "read", "/run/secrets/tls/gone"}, Stdout: &seen})
	if err != nil || code != 0 || !strings.Contains(seen.String(), "read second <nil>") || strings.Contains(seen.String(), "read x") {
		t.Errorf("while it runs: %q, %d, %v", seen.String(), code, err)
	}
	if after, err := r.Status(t.Context(), spec.ID); err != nil || after.PID != before.PID {
		t.Errorf("rewritten files started it again: %+v, %v", after, err)
	}
	if err := r.Stop(t.Context(), spec.ID, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.stateDir(spec.ID)); !os.IsNotExist(err) {
		t.Errorf("something is left of it: %v", err)
	}
}
