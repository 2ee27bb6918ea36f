package boot

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/release"
)

func TestListenNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "notify")
	messages := make(chan notified, 1)
	// Twice: a PID 1 that starts over binds the name again.
	for range 2 {
		fd, err := listenNotify(&Log{}, path, messages)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
	}
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("READY=1")); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-messages:
		if diff := cmp.Diff(notified{os.Getpid(), release.Notification{Ready: true}}, got, cmp.AllowUnexported(notified{})); diff != "" {
			t.Errorf("message (-want +got):\n%s", diff)
		}
	case <-time.After(10 * time.Second):
		t.Error("no message within 10 s")
	}
}
