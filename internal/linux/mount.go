package linux

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

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

// UnmountBelow detaches all that is mounted below a folder, the latest first. It stops
// at the first that stays.
func UnmountBelow(dir string) error {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for _, line := range slices.Backward(strings.Split(string(text), "\n")) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], dir+"/") {
			if err := unix.Unmount(fields[1], unix.MNT_DETACH); err != nil {
				return fmt.Errorf("unmount %s: %w", fields[1], err)
			}
		}
	}
	return nil
}
