package unixconn

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/nettest"
	"golang.org/x/sys/unix"
)

// pair connects two ends, of which the first is one of this package.
func pair(t testing.TB) (*Conn, *net.UnixConn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	other, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := Listener{l}.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		_ = other.Close()
	})
	return c.(*Conn), other.(*net.UnixConn)
}

func TestConn(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		a, b := pair(t)
		return a, b, func() {
			_ = a.Close()
			_ = b.Close()
		}, nil
	})
}

// watchers are the events that the epoll instances of this process report of a
// descriptor, as proc(5) tells them.
func watchers(t *testing.T, fd uintptr) (events []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it is closed
		}
		for line := range strings.Lines(string(text)) {
			if words := strings.Fields(line); len(words) > 3 && words[0] == "tfd:" && words[1] == fmt.Sprint(fd) {
				events = append(events, words[3])
			}
		}
	}
	return events
}

// The socket is only watched for what comes in, but while a write waits.
func TestWakesOnlyForReading(t *testing.T) {
	c, other := pair(t)
	var fd uintptr
	if err := (raw{c}).Control(func(f uintptr) { fd = f }); err != nil {
		t.Fatal(err)
	}
	if got, want := watchers(t, fd), []string{"2019"}; !slices.Equal(got, want) { // EPOLLIN, EPOLLRDHUP; EPOLLERR and EPOLLHUP always
		t.Errorf("watched for %q, want %q", got, want)
	}
	big := make([]byte, 4<<20)
	go func() { _, _ = io.Copy(io.Discard, other) }()
	if n, err := c.Write(big); n != len(big) || err != nil {
		t.Fatalf("wrote %d, %v", n, err)
	}
	if c.out != nil {
		t.Error("the socket is still waited for to write")
	}
}

func TestCloseEndsWaits(t *testing.T) {
	c, _ := pair(t)
	ends := make(chan error, 2)
	go func() {
		_, err := c.Read(make([]byte, 1))
		ends <- err
	}()
	go func() {
		_, err := c.Write(make([]byte, 4<<20))
		ends <- err
	}()
	time.Sleep(20 * time.Millisecond)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-ends; !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
	if err := (raw{c}).Control(func(uintptr) { t.Error("the socket is lent after it was closed") }); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// A write that cannot wait, since the runtime cannot watch its descriptor, leaves nothing.
func TestWriteThatCannotWait(t *testing.T) {
	c, _ := pair(t)
	file, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := c.begin(file); !errors.Is(err, os.ErrNoDeadline) || c.out != nil {
		t.Errorf("got %v, waits by %v", err, c.out)
	}
	if err := c.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Error(err)
	}
}

// No descriptor stays.
func TestClosesAll(t *testing.T) {
	count := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	a, b := pair(t) // the runtime's own poller is there
	_, _ = a.Close(), b.Close()
	before := count()
	for range 20 {
		a, b := pair(t)
		_, _ = a.Close(), b.Close()
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// Descriptors that nobody asked for do not stay open, whichever way they are read.
func TestClosesWhatComes(t *testing.T) {
	for _, size := range []int{1, little} {
		c, other := pair(t)
		in, out, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		fd := int(out.Fd())
		_, _, err = other.WriteMsgUnix([]byte("x"), unix.UnixRights(fd, fd), nil)
		if err := errors.Join(err, out.Close()); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, size)); n != 1 || err != nil {
			t.Fatalf("read %d, %v", n, err)
		}
		if err := in.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("a descriptor stays open: %v", err)
		}
	}
}
