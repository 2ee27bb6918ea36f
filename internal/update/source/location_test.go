package source

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/update"
)

// A pipe in the place of a file is refused, and not waited for.
func TestPipeInFolder(t *testing.T) {
	dir, _, root := publish(t, "1.0.0")
	file := filepath.Join(dir, "metadata", "timestamp.json")
	if err := errors.Join(os.Remove(file), unix.Mkfifo(file, 0o600)); err != nil {
		t.Fatal(err)
	}
	s, done := client(t, dir, root), make(chan error, 1)
	go func() {
		_, err := s.Releases(t.Context(), "amd64", "cloud")
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, update.ErrUnreachable) {
			t.Errorf("got %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for a writer")
	}
}
