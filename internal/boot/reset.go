package boot

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/release"
)

// resetWanted reports that the data partition is to be erased. The daemon leaves
// two marks: the file on the ESP counts, and is the first to come and the last to
// go; the one on the data partition spares every other boot from mounting the ESP.
// A partition that is half erased cannot be mounted, and one that was just erased
// has no state: then the ESP is asked.
func resetWanted(log *Log, parts []linux.Partition, disk string, data linux.Partition) bool {
	if data.Device != "" && inUse(newData) {
		return false
	}
	if _, ok := linux.FindPartition(parts, disk, release.PartitionData); !ok {
		return false
	}
	esp, ok := linux.FindPartition(parts, disk, release.PartitionESP)
	if !ok {
		return false
	}
	wanted := false
	err := linux.WithESP(esp, stage1ESP, unix.MS_RDONLY, func(dir string) error {
		wanted = exists(filepath.Join(dir, release.ESPReset))
		return nil
	})
	if err != nil {
		log.Error("cannot tell whether the data partition is to be erased: %v", err)
	}
	return wanted
}

// inUse reports that a mounted data partition holds state, and no mark that it is
// to be erased.
func inUse(data string) bool {
	state := filepath.Join(data, stateDir)
	return exists(state) && !exists(filepath.Join(state, release.ResetMark))
}

// resetData erases the data partition, writes an empty file system into it and
// mounts that; the root is mounted already. Power may fail at any point: the mark on
// the ESP goes last, and the next boot begins again. It returns the partition, or a
// zero one when /var has to be volatile.
func resetData(log *Log, m *modules, parts []linux.Partition, disk string) linux.Partition {
	began := time.Now()
	log.Notice("reset: erasing the data partition")
	if err := unix.Unmount(newData, 0); err != nil {
		log.Error("reset: %v", err)
		return linux.Partition{} // what is mounted there stays
	}
	p, _ := linux.FindPartition(parts, disk, release.PartitionData)
	err := eraseData(p.Node(), filepath.Join(newRoot, release.EmptyData), func() { armWatchdog(log) })
	if err == nil {
		esp, _ := linux.FindPartition(parts, disk, release.PartitionESP)
		err = linux.WithESP(esp, stage1ESP, 0, forgetReset)
	}
	if err != nil {
		log.Error("reset: %v: the next boot tries again", err)
	} else {
		log.Notice("reset: the data partition is empty, after %d ms", ms(began, time.Now()))
	}
	return mountStage1Data(log, m, parts, disk)
}

// eraseData makes a device hold an empty file system and nothing else, where it
// can discard; elsewhere what was stored is out of reach, until it is overwritten.
// alive is called at least every few seconds.
func eraseData(device, empty string, alive func()) error {
	f, err := os.OpenFile(device, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := linux.DeviceSize(f)
	if err != nil {
		return err
	}
	if size < release.EmptyDataSize {
		return fmt.Errorf("%s has %d bytes, an empty data partition %d", device, size, release.EmptyDataSize)
	}
	// Half erased, it must not be mounted: the superblock goes first.
	if err := linux.ZeroRange(f, 0, superblock); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	const step = 4 << 30
	for at := int64(0); at < size; at += step {
		alive()
		if linux.Discard(f, at, min(step, size-at)) != nil {
			break // it cannot
		}
	}
	for at := int64(0); at < release.EmptyDataSize; at += 64 << 20 {
		alive()
		if err := linux.ZeroRange(f, at, min(64<<20, release.EmptyDataSize-at)); err != nil {
			return err
		}
	}
	alive()
	return unpackEmpty(f, empty)
}

// superblock is how much at the beginning of a data partition is written last, in
// bytes: without its superblock it is not mounted.
const superblock = 64 << 10

// device is what an empty data partition is written to.
type device interface {
	io.WriterAt
	Sync() error
}

// unpackEmpty writes what is not zero of an empty data partition, the superblock
// once all else is on the disk.
func unpackEmpty(to device, file string) error {
	from, err := os.Open(file)
	if err != nil {
		return err
	}
	defer from.Close()
	z, err := gzip.NewReader(from)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	first, block, zero := make([]byte, superblock), make([]byte, superblock), make([]byte, superblock)
	if _, err := io.ReadFull(z, first); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	for at := int64(superblock); at < release.EmptyDataSize; at += int64(len(block)) {
		if _, err := io.ReadFull(z, block); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if string(block) == string(zero) {
			continue
		}
		if _, err := to.WriteAt(block, at); err != nil {
			return err
		}
	}
	if err := to.Sync(); err != nil {
		return err
	}
	if _, err := to.WriteAt(first, 0); err != nil {
		return err
	}
	return to.Sync()
}

// forgetReset takes the mark from the mounted ESP, and a Machine that still waits
// there: it is a part of what was to be erased.
func forgetReset(esp string) error {
	if err := wipe(filepath.Join(esp, release.ESPMachine)); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(esp, release.ESPReset)); err != nil {
		return err
	}
	return linux.FlushFileSystem(esp)
}
