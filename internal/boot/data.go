package boot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/release"
)

// mountData mounts the data partition from its node, or that of the mapping over an
// encrypted one; ext4 replays its journal by itself. What
// volumes may hold is bounded where the file system counts projects.
func mountData(m *modules, node, target string) error {
	options := ""
	if counts, err := ext4CountsProjects(node); err == nil && counts {
		options = "prjquota"
		// Cheaper than a process of our own that the kernel starts to load it.
		if err := m.load("quota_v2", ""); err != nil && !errors.Is(err, errNoModule) {
			return err
		}
	}
	return mount{node, target, "ext4", unix.MS_NOATIME | unix.MS_NODEV, options}.do()
}

// ext4CountsProjects tells whether a file system was made with the features
// quota and project (fs/ext4/ext4.h, EXT4_FEATURE_RO_COMPAT_…).
func ext4CountsProjects(node string) (bool, error) {
	features, err := ext4Field(node, 100, 4)
	if err != nil {
		return false, err
	}
	const quota, project = 0x100, 0x2000
	return binary.LittleEndian.Uint32(features)&(quota|project) == quota|project, nil
}

// ext4Label reads the label of the file system on a device.
func ext4Label(node string) (string, error) {
	label, err := ext4Field(node, 120, 16)
	return strings.TrimRight(string(label), "\x00"), err
}

// ext4Field reads bytes of the superblock on a device.
func ext4Field(node string, at int64, size int) ([]byte, error) {
	f, err := os.Open(node)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	field := make([]byte, size)
	if _, err := f.ReadAt(field, 1024+at); err != nil {
		return nil, fmt.Errorf("ext4 superblock: %w", err)
	}
	return field, nil
}

// mountVolatile stands in for a data partition that cannot be mounted, so that
// the node still comes up and can say so.
func mountVolatile(target string) error {
	return mount{"tmpfs", target, "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755,size=50%"}.do()
}

// growData extends the data partition to the end of its disk, the mapping over one
// that is encrypted, and the mounted file system to the end of that. All are online and survive a power
// failure; when there is nothing to grow, nothing is written.
func growData(log *Log, p linux.Partition, mountPoint string) error {
	began := time.Now()
	size, err := growPartition(log, p)
	if err != nil {
		// A table that cannot be rewritten leaves a smaller but sound partition.
		log.Error("the data partition keeps its %d MiB: %v", p.Size>>20, err)
		size = p.Size
	}
	node := p.Node()
	if open, encrypted := linux.MappingUnder(mountPoint); encrypted {
		size -= release.EncryptedStart
		if err := linux.ResizeCryptMapping(open.Name, uint64(size)/4096*4096/512); err != nil {
			return err
		}
		node = open.Node
	}
	have, blockSize, err := ext4Size(node)
	if err != nil {
		return err
	}
	want := uint64(size) / blockSize
	// Less than one block group is not worth a metadata change.
	if want < have+blockSize*8/2 {
		return nil
	}
	if err := linux.GrowExt4(mountPoint, want); err != nil {
		return err
	}
	log.Notice("data grown from %d to %d MiB in %d ms", have*blockSize>>20, want*blockSize>>20, time.Since(began).Milliseconds())
	return nil
}

// growPartition returns the partition's size in bytes after growing it.
func growPartition(log *Log, p linux.Partition) (int64, error) {
	disk, err := os.OpenFile("/dev/"+p.Disk, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer disk.Close()
	size, err := linux.DeviceSize(disk)
	if err != nil {
		return 0, err
	}
	sector, err := linux.SectorSize(disk)
	if err != nil {
		return 0, err
	}
	if sector != gptSector {
		return p.Size, nil
	}
	number, start, length, changed, err := growLast(disk, size, p.Name)
	if err != nil {
		return 0, err
	}
	if number != p.Number || start != p.Start {
		return 0, fmt.Errorf("the kernel sees partition %d at %d, the table says %d at %d", p.Number, p.Start, number, start)
	}
	if length == p.Size {
		return p.Size, nil
	}
	if err := linux.ResizePartition(disk, number, start, length); err != nil {
		return 0, err
	}
	if changed {
		log.Notice("partition %s on %s grown from %d to %d MiB", p.Name, p.Disk, p.Size>>20, length>>20)
	}
	return length, nil
}

// ext4Size reads the length of the file system on a device in its own blocks,
// and their size in bytes (fs/ext4/ext4.h, struct ext4_super_block).
func ext4Size(node string) (blocks, blockSize uint64, err error) {
	f, err := os.Open(node)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	return parseExt4(f)
}

func parseExt4(r io.ReaderAt) (blocks, blockSize uint64, err error) {
	super := make([]byte, 1024)
	if _, err := r.ReadAt(super, 1024); err != nil {
		return 0, 0, fmt.Errorf("ext4 superblock: %w", err)
	}
	logSize := binary.LittleEndian.Uint32(super[24:])
	if binary.LittleEndian.Uint16(super[56:]) != 0xef53 || logSize > 6 {
		return 0, 0, fmt.Errorf("ext4 superblock: not an ext4 file system")
	}
	low, high := binary.LittleEndian.Uint32(super[4:]), binary.LittleEndian.Uint32(super[0x150:])
	const incompat64bit = 0x80
	if binary.LittleEndian.Uint32(super[96:])&incompat64bit == 0 {
		high = 0
	}
	return uint64(high)<<32 | uint64(low), 1024 << logSize, nil
}
