package empty

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/release"
)

// Make makes a device hold an empty data partition, which it reads from a file such
// as release.EmptyData, and nothing else, where it can discard; elsewhere what was
// stored is out of reach, until it is overwritten. alive is called at least every few
// seconds.
func Make(device, file string, alive func()) error {
	f, err := os.OpenFile(device, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := Erase(f, alive); err != nil {
		return err
	}
	alive()
	return unpack(f, file, true)
}

// Erase makes the beginning of a device read as zeros, release.EmptyDataSize bytes of
// it, and discards all of it where it can.
func Erase(f *os.File, alive func()) error {
	size, err := linux.DeviceSize(f)
	if err != nil {
		return err
	}
	if size < release.EmptyDataSize {
		return fmt.Errorf("%s has %d bytes, an empty data partition %d", f.Name(), size, release.EmptyDataSize)
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
	return nil
}

// Write writes an empty data partition onto a device that may hold anything.
func Write(f *os.File, file string) error { return unpack(f, file, false) }

// superblock is how much at the beginning of a data partition is written last, in
// bytes: without its superblock it is not mounted.
const superblock = 64 << 10

// device is what an empty data partition is written to.
type device interface {
	io.WriterAt
	Sync() error
}

// unpack writes an empty data partition, the superblock once all else is on the disk.
// What is zero of it is left out where the device is zero already.
func unpack(to device, file string, zeroed bool) error {
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
		if zeroed && string(block) == string(zero) {
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
