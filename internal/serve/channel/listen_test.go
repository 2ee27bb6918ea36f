package channel_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"oscine.dev/oscine/internal/serve/channel"
)

// TestSocketIsOpenWhenItIsSeen watches for a socket that its worker may not use:
// a worker that is refused ends.
func TestSocketIsOpenWhenItIsSeen(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "d", "worker.sock")
	seen, stop := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(seen)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if info, err := os.Stat(socket); err == nil && info.Mode().Perm() != 0o666 {
				seen <- fmt.Errorf("the socket has the mode %v", info.Mode())
				return
			}
		}
	}()
	for range 500 {
		l, err := channel.Listen(socket)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(socket); err == nil {
			t.Fatal("the socket is left behind")
		}
	}
	close(stop)
	if err := <-seen; err != nil {
		t.Error(err)
	}
}
