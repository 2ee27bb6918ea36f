package boot

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestParseNotification(t *testing.T) {
	tests := map[string]Notification{
		"READY=1":                              {Ready: true},
		"READY=1\nWATCHDOG=1\nSTATUS=up\n":     {Ready: true, Watchdog: true, Status: "up"},
		"STOPPING=1\nX_OSCINE=reboot":          {Stopping: true, Request: RequestReboot},
		"X_OSCINE=poweroff":                    {Request: RequestPowerOff},
		"X_OSCINE=format":                      {},
		"READY=0\nREADY=\nready=1\n=1\n\n\x00": {},
		"":                                     {},
	}
	for text, want := range tests {
		if diff := cmp.Diff(want, ParseNotification([]byte(text))); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}

func FuzzParseNotification(f *testing.F) {
	f.Add([]byte("READY=1\nSTATUS=x\nX_OSCINE=reboot"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		n := ParseNotification(raw)
		if len(n.Status) > maxStatus || n.Request != RequestNone && n.Request != RequestReboot && n.Request != RequestPowerOff {
			t.Errorf("%q: got %+v", raw, n)
		}
	})
}

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
		if diff := cmp.Diff(notified{os.Getpid(), Notification{Ready: true}}, got, cmp.AllowUnexported(notified{})); diff != "" {
			t.Errorf("message (-want +got):\n%s", diff)
		}
	case <-time.After(10 * time.Second):
		t.Error("no message within 10 s")
	}
}
