package channel

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Bounds of a region.
const (
	MaxSlots     = 256
	MaxSlotBytes = 1 << 30
)

// Region is shared memory divided into slots of one size. Pages exist only
// once they are written.
type Region struct {
	slots     int
	slotBytes int
	mem       []byte
	fd        *os.File
}

func checkRegion(slots, slotBytes int) error {
	if slots < 1 || slots > MaxSlots || slotBytes < 4096 || slotBytes > MaxSlotBytes || slotBytes%4096 != 0 {
		return fmt.Errorf("%w: region of %d slots of %d bytes", ErrProtocol, slots, slotBytes)
	}
	return nil
}

// NewRegion creates a region that cannot be resized by anyone. Slot bytes are
// rounded up to whole pages of 4096.
func NewRegion(slots, slotBytes int) (*Region, error) {
	slotBytes = (slotBytes + 4095) &^ 4095
	if err := checkRegion(slots, slotBytes); err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("oscine-tensors", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("create shared memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "oscine-tensors")
	if err := unix.Ftruncate(fd, int64(slots)*int64(slotBytes)); err != nil {
		return nil, errors.Join(fmt.Errorf("size shared memory: %w", err), f.Close())
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return nil, errors.Join(fmt.Errorf("seal shared memory: %w", err), f.Close())
	}
	return mapRegion(f, slots, slotBytes)
}

// mapRegion maps a region and takes over f.
func mapRegion(f *os.File, slots, slotBytes int) (*Region, error) {
	if err := checkRegion(slots, slotBytes); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	info, err := f.Stat()
	if err == nil && info.Size() != int64(slots)*int64(slotBytes) {
		err = fmt.Errorf("%w: %d bytes of shared memory for %d slots of %d", ErrProtocol, info.Size(), slots, slotBytes)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, slots*slotBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map shared memory: %w", err), f.Close())
	}
	r := &Region{slots: slots, slotBytes: slotBytes, mem: mem, fd: f}
	runtime.AddCleanup(r, func(mem []byte) { _ = unix.Munmap(mem) }, mem)
	return r, nil
}

// Slots returns the number of slots.
func (r *Region) Slots() int { return r.slots }

// SlotBytes returns the size of a slot.
func (r *Region) SlotBytes() int { return r.slotBytes }

// Slot returns the memory of slot i. It stays mapped as long as the region is
// reachable, so callers keep the region, not only the slice.
func (r *Region) Slot(i int) []byte {
	return r.mem[i*r.slotBytes : (i+1)*r.slotBytes : (i+1)*r.slotBytes]
}

// Trim gives the memory of a slot behind the first keep bytes back to the
// system.
func (r *Region) Trim(i, keep int) {
	keep = (keep + 4095) &^ 4095
	if keep < r.slotBytes {
		_ = unix.Madvise(r.Slot(i)[keep:], unix.MADV_REMOVE)
	}
}

// Close gives up the descriptor; the mapping goes with the last reference.
func (r *Region) Close() error { return r.fd.Close() }
