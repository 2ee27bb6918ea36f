package pack

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/release"
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
	return mountError(f, err)
}

func mountError(f *os.File, err error) error {
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
	device, err := attachLoop(f)
	if err != nil {
		return err
	}
	return errors.Join(mountErofs(device.Name(), dir), device.Close())
}

// attachLoop puts a file behind a free loop device, which is free again when nothing
// has it open any more. What is read is not kept a second time, for the file, where
// its file system can do without (LO_FLAGS_DIRECT_IO).
func attachLoop(f *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range 16 { // another process may take the free device first
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", number), os.O_RDONLY, 0)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(f.Fd()), Size: release.BlockSize, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO}}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if err == nil {
			return device, nil
		}
		err = errors.Join(err, device.Close())
		if !errors.Is(err, unix.EBUSY) {
			return nil, err
		}
	}
	return nil, errors.New("no loop device stayed free")
}

// errNoVerity means that this machine mounts nothing through dm-verity.
var errNoVerity = errors.New("dm-verity cannot be used")

// readAhead is that of files. The kernel's for a mapping can be megabytes, each of
// whose blocks is checked.
const readAhead = 128 // KiB

// mountVerity mounts a pack's file through dm-verity: a block that does not have its
// hash is a read error. Mapping and loop device go away with the mount, also with one
// that a crash leaves no time for: the kernel removes what nothing has open. It returns
// errNoVerity where the machine lacks what that needs, and ErrDamaged.
func mountVerity(f *os.File, v *release.Verity, dir, mapping string) error {
	start, ok, err := v.Match(f)
	if err != nil {
		return unreadable(err)
	}
	if !ok {
		return fmt.Errorf("%w: the top of its hash tree does not have its root hash", ErrDamaged)
	}
	loop, err := attachLoop(f)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoVerity, err)
	}
	defer loop.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(loop.Fd()), &st); err != nil {
		return err
	}
	name := mapping + filepath.Base(loop.Name()) // no two have one loop device
	table := v.Table(fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), start)
	node, err := linux.CreateMapping(name, "verity", table, v.Sectors())
	if err != nil {
		return fmt.Errorf("%w: %w", errNoVerity, err)
	}
	device, err := os.Open(node) // holds the mapping until it is mounted
	if removed := linux.RemoveMapping(name); err != nil || removed != nil {
		if err == nil {
			err = errors.Join(removed, device.Close())
		}
		return fmt.Errorf("%w: %w", errNoVerity, err)
	}
	defer device.Close()
	_ = linux.SetReadAhead(node, readAhead) // else it is slower
	err = mountErofs(node, dir)
	if err != nil && corrupt(device) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return mountError(f, err)
}

// unreadable is an error of reading a pack: ErrDamaged too if the file ends too early or
// the disk cannot read it.
func unreadable(err error) error {
	for _, damage := range []error{io.EOF, io.ErrUnexpectedEOF, unix.EIO} {
		if errors.Is(err, damage) {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
	return err
}

// corrupt reports whether a block of an open mapping was read that does not have its
// hash.
func corrupt(device *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(device.Fd()), &st) == nil && corruptMapping(st.Rdev)
}

func corruptMapping(device uint64) bool {
	status, err := linux.MappingStatus(device, "verity")
	return err == nil && strings.HasPrefix(status, "C")
}

// mountedCorrupt is corrupt for what is mounted at dir; false where that is no mapping.
func mountedCorrupt(dir string) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && corruptMapping(st.Dev)
}

// mounted reports whether an erofs is mounted at dir.
func mounted(dir string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(dir, &fs) == nil && fs.Type == unix.EROFS_SUPER_MAGIC_V1
}

func unmount(dir string) error {
	if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}
