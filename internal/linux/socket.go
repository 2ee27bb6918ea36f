package linux

import (
	"errors"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxRights is how many descriptors can come with one message: SCM_MAX_FD of the kernel.
const maxRights = 253

// Receiver receives from a connection by ReceiveNow, and waits where nothing has come yet.
// Its memory is used again: it is for one goroutine at a time.
type Receiver struct {
	raw  syscall.RawConn
	now  func(fd uintptr) bool
	p    []byte
	n    int
	came []int
	err  error
}

// NewReceiver returns the Receiver of a connection.
func NewReceiver(raw syscall.RawConn) *Receiver {
	r := &Receiver{raw: raw}
	r.now = r.receive
	return r
}

// Receive reads into p, 0 bytes where the other side has closed, and takes over the
// descriptors that come. It returns the connection's error where its deadline passes or
// it is closed.
func (r *Receiver) Receive(p []byte) (n int, came []int, err error) {
	r.p, r.n, r.came, r.err = p, 0, nil, nil
	err = r.raw.Read(r.now)
	r.p = nil
	if err != nil {
		return 0, nil, err
	}
	return r.n, r.came, r.err
}

func (r *Receiver) receive(fd uintptr) bool {
	r.n, r.came, r.err = ReceiveNow(int(fd), r.p)
	return !errors.Is(r.err, unix.EAGAIN)
}

// ReceiveNow reads what a socket has, and takes over all descriptors that come with it.
// It is EAGAIN where the socket has nothing. The kernel would close descriptors without
// room inside the call, and that may take as long as the sender likes, such as for a
// socket that lingers.
//
// It and the functions below do not tell the Go scheduler: what never waits leaves no
// processor idle, and to tell would wake the runtime's monitor thread each time. They are
// for messages of at most some hundred kilobytes.
func ReceiveNow(fd int, p []byte) (n int, came []int, err error) {
	var control [unix.SizeofCmsghdr + 4*maxRights]byte
	part := unix.Iovec{Base: unsafe.SliceData(p)}
	part.SetLen(len(p))
	message := unix.Msghdr{Iov: &part, Control: &control[0]}
	message.SetIovlen(1)
	message.SetControllen(len(control))
	got, errno := uintptr(0), unix.EINTR
	for errno == unix.EINTR {
		got, _, errno = unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&message)), unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	}
	if errno != 0 {
		return 0, nil, errno
	}
	if message.Controllen > 0 {
		came = rights(control[:message.Controllen])
	}
	return int(got), came, nil
}

// rights are the descriptors of control messages.
func rights(control []byte) (came []int) {
	for len(control) > 0 {
		header, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			break
		}
		if fds, err := unix.ParseUnixRights(&unix.SocketControlMessage{Header: header, Data: data}); err == nil {
			came = append(came, fds...)
		}
		control = rest
	}
	return came
}

// ReadNow reads what a file of memory holds from an offset on. As the others it tells the
// Go scheduler nothing. It waits for pages that were swapped out: it is for a few.
func ReadNow(fd int, p []byte, offset int64) (n int, err error) {
	got, _, errno := unix.RawSyscall6(unix.SYS_PREAD64, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), uintptr(offset), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(got), nil
}

// SendNow writes what a socket has room for; EAGAIN where it has none.
func SendNow(fd int, p []byte) (n int, err error) {
	sent, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(sent), nil
}
