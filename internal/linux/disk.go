package linux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ioctls of include/uapi/linux/blkpg.h and fs/ext4/ext4.h.
const (
	blkpg                = 0x1269
	blkpgResizePartition = 3
	ext4ResizeFS         = 0x40086610 // EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64)
)

// blkpgArg is struct blkpg_ioctl_arg.
type blkpgArg struct {
	Op      int32
	Flags   int32
	DataLen int32
	Data    unsafe.Pointer
}

// blkpgPartition is struct blkpg_partition; lengths are bytes.
type blkpgPartition struct {
	Start   int64
	Length  int64
	Number  int32
	DevName [64]byte
	VolName [64]byte
}

// ResizePartition tells the kernel that partition number of the open disk now
// spans length bytes from start; it may be mounted. It changes no byte on disk.
func ResizePartition(disk *os.File, number int, start, length int64) error {
	part := blkpgPartition{Start: start, Length: length, Number: int32(number)}
	arg := blkpgArg{Op: blkpgResizePartition, DataLen: int32(unsafe.Sizeof(part)), Data: unsafe.Pointer(&part)}
	if err := ioctl(int(disk.Fd()), blkpg, unsafe.Pointer(&arg)); err != nil {
		return fmt.Errorf("resize partition %d of %s: %w", number, disk.Name(), err)
	}
	return nil
}

// GrowExt4 grows the mounted ext4 file system at mountPoint to blocks file
// system blocks, online (EXT4_IOC_RESIZE_FS).
func GrowExt4(mountPoint string, blocks uint64) error {
	dir, err := os.Open(mountPoint)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := ioctl(int(dir.Fd()), ext4ResizeFS, unsafe.Pointer(&blocks)); err != nil {
		return fmt.Errorf("grow ext4 at %s to %d blocks: %w", mountPoint, blocks, err)
	}
	return nil
}

// DeviceSize returns the size of an open block device or regular file in bytes.
func DeviceSize(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if info.Mode()&os.ModeDevice == 0 {
		return info.Size(), nil
	}
	var size uint64
	if err := ioctl(int(f.Fd()), unix.BLKGETSIZE64, unsafe.Pointer(&size)); err != nil {
		return 0, fmt.Errorf("size of %s: %w", f.Name(), err)
	}
	return int64(size), nil
}

// SectorSize returns the logical sector size of an open block device in bytes,
// and 512 for a regular file.
func SectorSize(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if info.Mode()&os.ModeDevice == 0 {
		return 512, nil
	}
	size, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET)
	if err != nil {
		return 0, fmt.Errorf("sector size of %s: %w", f.Name(), err)
	}
	return int64(size), nil
}

// ZeroRange has length bytes of a block device or regular file from start read as
// zeros, without sending them where the device can do it by itself (BLKZEROOUT).
func ZeroRange(f *os.File, start, length int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeDevice == 0 {
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, start, length)
	} else {
		span := [2]uint64{uint64(start), uint64(length)}
		err = ioctl(int(f.Fd()), unix.BLKZEROOUT, unsafe.Pointer(&span))
	}
	if err != nil {
		return fmt.Errorf("zero %d bytes of %s: %w", length, f.Name(), err)
	}
	return nil
}

// ReadPartitions has the kernel read a disk's partition table again. None of the
// partitions it knows may be in use.
func ReadPartitions(disk *os.File) error {
	if err := ioctl(int(disk.Fd()), unix.BLKRRPART, nil); err != nil {
		return fmt.Errorf("read the partition table of %s again: %w", disk.Name(), err)
	}
	return nil
}

// Discard tells a block device that length bytes from start hold nothing any more
// (BLKDISCARD). Not every device can take that.
func Discard(f *os.File, start, length int64) error {
	span := [2]uint64{uint64(start), uint64(length)}
	if err := ioctl(int(f.Fd()), unix.BLKDISCARD, unsafe.Pointer(&span)); err != nil {
		return fmt.Errorf("discard %d bytes of %s: %w", length, f.Name(), err)
	}
	return nil
}

// Flush returns when what was written to f is on its disk, and has what is read of it
// afterwards come from there.
func Flush(f *os.File) error {
	if err := f.Sync(); err != nil {
		return err
	}
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// FlushFileSystem returns when all that was written to the file system of dir is on
// its disk. FAT's syncfs leaves it in the disk's own cache, which fsync empties.
func FlushFileSystem(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Sync(), d.Close())
}

// SetReadAhead bounds how many KiB the kernel reads ahead of what is asked of a block
// device, given by its node.
func SetReadAhead(node string, kib int) error {
	file := filepath.Join("/sys/class/block", filepath.Base(node), "queue/read_ahead_kb")
	return os.WriteFile(file, []byte(strconv.Itoa(kib)), 0o644)
}
