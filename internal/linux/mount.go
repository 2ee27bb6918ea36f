package linux

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Hardened are the mount flags of a file system that holds neither programs nor
// devices.
const Hardened = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// WithESP mounts the EFI system partition p at dir, which is made, only while f
// runs. Not synchronously: that made one rename take 70 s.
func WithESP(p Partition, dir string, flags uintptr, f func(dir string) error) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("mount the ESP: %w", err)
	}
	err = unix.Mount(p.Node(), dir, "vfat", Hardened|flags, "umask=0077")
	if err != nil && !(errors.Is(err, unix.EBUSY) && isMountedAt(p.Node(), dir)) {
		return fmt.Errorf("mount the ESP %s at %s: %w", p.Node(), dir, err)
	}
	defer func() {
		if unmountErr := unix.Unmount(dir, 0); unmountErr != nil {
			err = errors.Join(err, fmt.Errorf("unmount the ESP at %s: %w", dir, unmountErr))
		}
	}()
	return f(dir)
}

// isMountedAt reports whether dir shows the file system on the device node, such
// as from a program that was killed meanwhile.
func isMountedAt(node, dir string) bool {
	var device, root unix.Stat_t
	return unix.Stat(node, &device) == nil && unix.Stat(dir, &root) == nil && root.Dev == device.Rdev
}
