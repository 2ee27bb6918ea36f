package linux

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// KVM makes a virtual machine with one processor and drops it again; see
// Documentation/virt/kvm/api.rst. Success does not prove that a stock kernel
// boots in it: there are hosts whose /dev/kvm passes this and even runs code,
// and still cannot.
func KVM() error {
	const getAPIVersion, createVM, createVCPU = 0xae00, 0xae01, 0xae41
	device, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer device.Close()
	if version, _, errno := unix.Syscall(unix.SYS_IOCTL, device.Fd(), getAPIVersion, 0); errno != 0 || version != 12 {
		return fmt.Errorf("/dev/kvm: interface version %d, want 12 (%v)", version, errno)
	}
	machine, _, errno := unix.Syscall(unix.SYS_IOCTL, device.Fd(), createVM, 0)
	if errno != 0 {
		return fmt.Errorf("/dev/kvm: make a machine: %w", errno)
	}
	defer unix.Close(int(machine))
	processor, _, errno := unix.Syscall(unix.SYS_IOCTL, machine, createVCPU, 0)
	if errno != 0 {
		return fmt.Errorf("/dev/kvm: make a processor: %w", errno)
	}
	return unix.Close(int(processor))
}
