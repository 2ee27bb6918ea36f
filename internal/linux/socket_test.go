package linux

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// The kernel closes none of the descriptors that come: that can take long.
func TestReceivesAllDescriptors(t *testing.T) {
	for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_SEQPACKET} {
		pair, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pair[0])
		defer unix.Close(pair[1])
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		for _, count := range []int{0, 1, 2, maxRights} {
			send := make([]int, count)
			for i := range send {
				send[i] = int(null.Fd())
			}
			if err := unix.Sendmsg(pair[0], []byte("text"), unix.UnixRights(send...), nil, 0); err != nil {
				t.Fatal(err)
			}
			p := make([]byte, 10)
			n, came, err := ReceiveNow(pair[1], p)
			if string(p[:n]) != "text" || err != nil || len(came) != count {
				t.Errorf("of %d descriptors %d came, with %q, %v", count, len(came), p[:n], err)
			}
			for _, fd := range came {
				if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags != unix.FD_CLOEXEC {
					t.Errorf("a descriptor with flags %x, %v", flags, err)
				}
				if err := unix.Close(fd); err != nil {
					t.Error(err)
				}
			}
		}
		if err := unix.Sendmsg(pair[0], []byte("text"), unix.UnixRights(make([]int, maxRights+1)...), nil, 0); err == nil {
			t.Errorf("the kernel sends more than %d descriptors", maxRights)
		}
	}
}
