package pack

import (
	"errors"
	"path/filepath"
	"testing"
	"time"
)

// Mounting a pack reads all of it: listing does not wait for it.
func TestListWaitsForNoMount(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore(filepath.Join(dir, "packs"), filepath.Join(dir, "mounts"), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.mounting.Lock()
	defer s.mounting.Unlock()
	listed := make(chan error, 1)
	go func() {
		_, err := s.List()
		_, missing := s.Find("onnxruntime")
		if !errors.Is(missing, ErrNotInstalled) {
			err = errors.Join(err, missing)
		}
		listed <- err
	}()
	select {
	case err := <-listed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the list waits for a mount")
	}
}
