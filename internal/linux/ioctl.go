package linux

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl issues request on fd with a pointer argument, repeating it when a
// signal interrupts.
func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		}
		return errno
	}
}
