package region

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// memfd returns a descriptor of size bytes with the seals.
func memfd(t *testing.T, size int64, seals int) int {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_ALLOW_SEALING|unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestReadAndWrite(t *testing.T) {
	r := New(NewRoom(1 << 20))
	defer r.Close()
	fd := memfd(t, 4096, needSeals)
	own, err := unix.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(own)
	r.Offer(fd)
	if err := r.Register(Status{Name: "a", Offset: 1024, Size: 2048}); err != nil {
		t.Fatal(err)
	}
	if err := r.Write("a", 8, []byte("answer")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 6)
	if _, err := unix.Pread(own, got, 1032); err != nil || string(got) != "answer" {
		t.Errorf("the client reads %q, %v", got, err)
	}
	if err := r.Read("a", 8, got); err != nil || string(got) != "answer" {
		t.Errorf("got %q, %v", got, err)
	}
	hole := bytes.Repeat([]byte{1}, 16)
	if err := r.Read("a", 2032, hole); err != nil || !bytes.Equal(hole, make([]byte, 16)) {
		t.Errorf("got %v, %v", hole, err)
	}
	for _, bad := range []struct {
		name         string
		offset, size int64
	}{{"b", 0, 1}, {"a", 2048, 1}, {"a", 0, 2049}, {"a", -1, 1}, {"a", 1 << 62, 1 << 62}} {
		if err := r.Check(bad.name, bad.offset, bad.size); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: got %v", bad, err)
		}
	}
	r.Unregister("a")
	if err := r.Read("a", 0, got); !errors.Is(err, ErrInvalid) {
		t.Errorf("an unregistered region can be read: %v", err)
	}
}

func TestRefusesWhatIsNotSafe(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	onDisk, err := unix.Dup(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		fd int
		s  Status
	}{
		"nothing":           {-1, Status{Name: "a", Size: 1}},
		"a file":            {onDisk, Status{Name: "a", Size: 1}},
		"not sealed":        {memfd(t, 4096, 0), Status{Name: "a", Size: 1}},
		"can shrink":        {memfd(t, 4096, unix.F_SEAL_GROW|unix.F_SEAL_SEAL), Status{Name: "a", Size: 1}},
		"can grow":          {memfd(t, 4096, unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL), Status{Name: "a", Size: 1}},
		"can be sealed":     {memfd(t, 4096, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW), Status{Name: "a", Size: 1}},
		"read-only":         {memfd(t, 4096, needSeals|unix.F_SEAL_WRITE), Status{Name: "a", Size: 1}},
		"read-only to come": {memfd(t, 4096, needSeals|unix.F_SEAL_FUTURE_WRITE), Status{Name: "a", Size: 1}},
		"beyond its end":    {memfd(t, 4096, needSeals), Status{Name: "a", Size: 4097}},
		"an offset beyond":  {memfd(t, 4096, needSeals), Status{Name: "a", Offset: 1 << 63, Size: 1}},
		"numbers that wrap": {memfd(t, 4096, needSeals), Status{Name: "a", Offset: ^uint64(0), Size: 2}},
		"rounding wraps":    {memfd(t, 1<<63-1, needSeals), Status{Name: "a", Offset: 1<<63 - 4097, Size: 4096}},
		"empty":             {memfd(t, 4096, needSeals), Status{Name: "a"}},
		"no name":           {memfd(t, 4096, needSeals), Status{Size: 1}},
		"too large":         {memfd(t, MaxBytes+1, needSeals), Status{Name: "a", Size: MaxBytes + 1}},
	} {
		r := New(NewRoom(1 << 40))
		if test.fd >= 0 {
			r.Offer(test.fd)
		}
		if err := r.Register(test.s); !errors.Is(err, ErrInvalid) || len(r.List()) > 0 {
			t.Errorf("%s: got %v", name, err)
		}
		r.Close()
	}
}

// What is no memfd is closed before Offer returns, and so is a memfd that another
// follows. Neither keeps others from the regions while it is being closed.
func TestOfferKeepsOneMemfd(t *testing.T) {
	r := New(NewRoom(1 << 20))
	defer r.Close()
	open := func(fd int) bool {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		return err == nil
	}
	first, second := memfd(t, 4096, needSeals), memfd(t, 4096, needSeals)
	r.Offer(first)
	r.Offer(second)
	if open(first) || !open(second) {
		t.Errorf("open: the first memfd %v, the second %v", open(first), open(second))
	}
	socket := lingering(t)
	begin, offered := time.Now(), make(chan time.Duration)
	go func() {
		r.Offer(socket)
		offered <- time.Since(begin)
	}()
	time.Sleep(100 * time.Millisecond)
	r.List()
	if d := time.Since(begin); d > 700*time.Millisecond {
		t.Errorf("others waited for %v", d)
	}
	if d := <-offered; d < 700*time.Millisecond {
		t.Errorf("a lingering socket was closed in %v, by another goroutine", d)
	}
	if open(socket) || open(second) {
		t.Error("a descriptor is left open")
	}
}

// lingering returns a socket that takes a second to close.
func lingering(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: l.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 1}); err != nil {
		t.Fatal(err)
	}
	for err = nil; err == nil; { // more than the peer, which reads nothing, takes
		_, err = unix.SendmsgN(fd, make([]byte, 1<<16), nil, nil, unix.MSG_DONTWAIT)
	}
	return fd
}

// What the daemon wrote does not stay when the region ends, even where the client keeps the memfd.
func TestPagesAreFreed(t *testing.T) {
	for name, end := range map[string]func(*Regions){
		"Unregister": func(r *Regions) { r.Unregister("a") },
		"Close":      func(r *Regions) { r.Close() },
	} {
		page := int64(os.Getpagesize())
		r := New(NewRoom(1 << 40))
		fd := memfd(t, 6*page, needSeals)
		own, err := unix.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Pwrite(own, []byte("client"), 0); err != nil {
			t.Fatal(err)
		}
		r.Offer(fd)
		if err := r.Register(Status{Name: "a", Offset: uint64(page) + 100, Size: uint64(4 * page)}); err != nil {
			t.Fatal(err)
		}
		if err := r.Write("a", 0, make([]byte, 4*page)); err != nil {
			t.Fatal(err)
		}
		if n := blocks(t, own); n != 6*page {
			t.Errorf("%s: %d bytes are taken, want all", name, n)
		}
		end(r)
		if n := blocks(t, own); n != page {
			t.Errorf("%s: %d bytes are taken afterwards, want the client's page", name, n)
		}
		unix.Close(own)
		r.Close()
	}
}

// blocks is how many bytes of memory a memfd takes.
func blocks(t *testing.T, fd int) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func TestRoomIsGivenBack(t *testing.T) {
	room := NewRoom(10 * 4096)
	for range 3 {
		r := New(room)
		for i := range 11 {
			r.Offer(memfd(t, 4096, needSeals))
			err := r.Register(Status{Name: fmt.Sprint(i), Size: 4096})
			if full := errors.Is(err, ErrFull); full != (i == 10) || err != nil && !full {
				t.Errorf("region %d: got %v", i, err)
			}
		}
		r.Offer(memfd(t, 4096, needSeals)) // and never registers it
		r.Close()
	}
	if !room.bytes.TryAcquire(10*4096) || !room.regions.TryAcquire(maxAll) {
		t.Error("the room of closed connections is not all given back")
	}
	r := New(room)
	r.Close()
	r.Offer(memfd(t, 4096, needSeals))
	if err := r.Register(Status{Name: "late", Size: 1}); !errors.Is(err, ErrInvalid) {
		t.Errorf("after the end: %v", err)
	}
}
