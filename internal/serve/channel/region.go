package channel

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Bounds of a region.
const (
	MaxSlots     = 256
	MaxSlotBytes = 1 << 30
	page         = 4096
	// cancelWords is where the words of the slots begin in the first page; the
	// futex that signals a change of them is its first word.
	cancelWords = 64
)

// Size is how a region is divided. Pages exist only once they are written, and
// are charged to the first writer: the worker writes those that stay.
type Size struct {
	Slots     int
	SlotBytes int // whole pages
	// The first WarmBytes of the first WarmSlots slots are written by the
	// worker when it maps the region, and never given back while it lives.
	WarmSlots int
	WarmBytes int
}

func (s Size) bytes() int { return page + s.Slots*s.SlotBytes }

func (s Size) check() error {
	if s.Slots < 1 || s.Slots > MaxSlots || s.SlotBytes < page || s.SlotBytes > MaxSlotBytes || s.SlotBytes%page != 0 ||
		s.WarmSlots < 0 || s.WarmSlots > s.Slots || s.WarmBytes < 0 || s.WarmBytes > s.SlotBytes || s.WarmBytes%page != 0 {
		return fmt.Errorf("%w: region of %d slots of %d bytes, %d of them with %d to keep", ErrProtocol, s.Slots, s.SlotBytes, s.WarmSlots, s.WarmBytes)
	}
	return nil
}

// Region is shared memory: a page of words by which requests are cancelled,
// and slots of one size.
type Region struct {
	Size
	mem []byte
	fd  *os.File
}

// NewRegion creates a region that cannot be resized by anyone. Bytes are
// rounded up to whole pages of 4096.
func NewRegion(size Size) (*Region, error) {
	size.SlotBytes = (size.SlotBytes + page - 1) &^ (page - 1)
	size.WarmBytes = (size.WarmBytes + page - 1) &^ (page - 1)
	if err := size.check(); err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("oscine-tensors", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("create shared memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "oscine-tensors")
	if err := unix.Ftruncate(fd, int64(size.bytes())); err != nil {
		return nil, errors.Join(fmt.Errorf("size shared memory: %w", err), f.Close())
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return nil, errors.Join(fmt.Errorf("seal shared memory: %w", err), f.Close())
	}
	return mapRegion(f, size)
}

// mapRegion maps a region and takes over f.
func mapRegion(f *os.File, size Size) (*Region, error) {
	if err := size.check(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	info, err := f.Stat()
	if err == nil && info.Size() != int64(size.bytes()) {
		err = fmt.Errorf("%w: %d bytes of shared memory for %d slots of %d", ErrProtocol, info.Size(), size.Slots, size.SlotBytes)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, size.bytes(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map shared memory: %w", err), f.Close())
	}
	r := &Region{Size: size, mem: mem, fd: f}
	runtime.AddCleanup(r, func(mem []byte) { _ = unix.Munmap(mem) }, mem)
	return r, nil
}

// Slot returns the memory of slot i. It stays mapped as long as the region is
// reachable, so callers keep the region, not only the slice.
func (r *Region) Slot(i int) []byte {
	from := page + i*r.SlotBytes
	return r.mem[from : from+r.SlotBytes : from+r.SlotBytes]
}

// warm is how many bytes of a slot stay.
func (r *Region) warm(i int) int {
	if i < r.WarmSlots {
		return r.WarmBytes
	}
	return 0
}

// Trim gives the memory of a slot, of which used bytes may have been written,
// back to the system, except what the worker keeps warm.
func (r *Region) Trim(i, used int) {
	if warm := r.warm(i); used > warm {
		r.punch(i, warm, min((used+page-1)&^(page-1), r.SlotBytes))
	}
}

// Punch gives all the memory of a slot back to the system.
func (r *Region) Punch(i int) { r.punch(i, 0, r.SlotBytes) }

func (r *Region) punch(i, from, to int) {
	// It cannot fail on a memfd.
	_ = unix.Fallocate(int(r.fd.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE,
		int64(page+i*r.SlotBytes+from), int64(to-from))
}

// populate writes what stays, so that it counts for this process.
func (r *Region) populate() {
	for i := range r.WarmSlots {
		memory := r.Slot(i)[:r.WarmBytes]
		if len(memory) > 0 && unix.Madvise(memory, unix.MADV_POPULATE_WRITE) != nil {
			for at := 0; at < len(memory); at += page { // kernels before 5.14
				atomic.AddUint32((*uint32)(unsafe.Pointer(&memory[at])), 0)
			}
		}
	}
}

// word is the cancel word of a slot.
func (r *Region) word(i int) *uint64 {
	return (*uint64)(unsafe.Pointer(&r.mem[cancelWords+8*i]))
}

func (r *Region) futex() *uint32 { return (*uint32)(unsafe.Pointer(&r.mem[0])) }

// Cancel tells the worker that the answer to a request is no longer needed. The
// request is still answered.
func (r *Region) Cancel(slot int, id uint64) {
	atomic.StoreUint64(r.word(slot), id)
	r.wake()
}

// wake lets awaitCancel return.
func (r *Region) wake() {
	atomic.AddUint32(r.futex(), 1)
	_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(r.futex())), futexWake, math.MaxInt32, 0, 0, 0)
	runtime.KeepAlive(r)
}

// cancelled reports whether a request was cancelled.
func (r *Region) cancelled(slot int, id uint64) bool { return atomic.LoadUint64(r.word(slot)) == id }

// The operations of futex(2) on memory that processes share.
const (
	futexWait = 0
	futexWake = 1
)

// awaitCancel waits until a request is cancelled after the count was seen, and
// returns the new count.
func (r *Region) awaitCancel(seen uint32) uint32 {
	_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(r.futex())), futexWait, uintptr(seen), 0, 0, 0)
	defer runtime.KeepAlive(r)
	return atomic.LoadUint32(r.futex())
}

// Close gives up the descriptor; the mapping goes with the last reference.
func (r *Region) Close() error { return r.fd.Close() }
