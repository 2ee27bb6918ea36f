package linux

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ReceiveNow reads what a socket has, and what comes with it into control, of which
// it returns how much is used. It is EAGAIN where the socket has nothing.
//
// It and the functions below do not tell the Go scheduler: what never waits leaves no processor
// idle, and to tell would wake the runtime's monitor thread each time. They are for
// messages of at most some hundred kilobytes.
func ReceiveNow(fd int, p, control []byte) (n, controls int, err error) {
	part := unix.Iovec{Base: unsafe.SliceData(p)}
	part.SetLen(len(p))
	message := unix.Msghdr{Iov: &part, Control: unsafe.SliceData(control)}
	message.SetIovlen(1)
	message.SetControllen(len(control))
	got, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&message)), unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if errno != 0 {
		return 0, 0, errno
	}
	return int(got), int(message.Controllen), nil
}

// ReadNow reads what a file of memory holds from an offset on. As the others it tells the
// Go scheduler nothing: it waits for nobody.
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
