package repository_test

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/update/repository"
	"oscine.dev/oscine/internal/update/repository/repositorytest"
)

// TestNoRoomOnTheDisk creates a release in a process whose files must not grow
// beyond a megabyte, which is less than the release needs.
func TestNoRoomOnTheDisk(t *testing.T) {
	if os.Getenv("OSCINE_TEST_NO_ROOM") == "" {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNoRoomOnTheDisk$")
		child.Env = append(os.Environ(), "OSCINE_TEST_NO_ROOM=1")
		if said, err := child.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		return
	}
	dir, r, _ := repositorytest.New(t, repository.Options{})
	parts := repositorytest.Parts(t, "1.0.0", repositorytest.Kernel, repositorytest.Files("1.0.0"))
	before := tree(t, dir)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1 << 20, Max: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Create(t.Context(), repository.Release{Parts: parts}); !errors.Is(err, syscall.EFBIG) {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Errorf("something is left:\n%s", diff)
	}
}
