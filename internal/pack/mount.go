package pack

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mountRead mounts an erofs file read-only. Kernels from 6.12 on mount the
// file itself (CONFIG_EROFS_FS_BACKED_BY_FILE); others need a loop device. The
// open file is mounted, not its path, so what was verified is what is mounted.
func mountRead(f *os.File, dir string) error {
	source := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	err := mountErofs(source, dir)
	if errors.Is(err, unix.ENOTBLK) || errors.Is(err, unix.EINVAL) {
		err = mountLoop(f, dir)
	}
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("mount %s: %w: mounting packs needs root", f.Name(), err)
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("mount %s: %w: the kernel has no erofs", f.Name(), err)
	case err != nil:
		return fmt.Errorf("mount %s: %w", f.Name(), err)
	}
	return nil
}

func mountErofs(source, dir string) error {
	return unix.Mount(source, dir, "erofs", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOATIME, "")
}

// mountLoop mounts through a loop device that goes away with the mount.
func mountLoop(f *os.File, dir string) error {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	for range 16 { // another process may take the free device first
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return fmt.Errorf("find a free loop device: %w", err)
		}
		device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", number), os.O_RDONLY, 0)
		if err != nil {
			return err
		}
		config := unix.LoopConfig{Fd: uint32(f.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR}}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if err == nil {
			err = mountErofs(device.Name(), dir)
		}
		err = errors.Join(err, device.Close())
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return errors.New("no loop device stayed free")
}

// mounted reports whether an erofs is mounted at dir.
func mounted(dir string) bool {
	const magic = 0xe0f5e1e2
	var fs unix.Statfs_t
	return unix.Statfs(dir, &fs) == nil && uint32(fs.Type) == magic
}

func unmount(dir string) error {
	if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}
