package worker

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Block is memory outside the Go heap, aligned to a page, for C libraries.
type Block []byte

// NewBlock returns zeroed memory of at least n bytes. It panics when the
// process has no memory left, as Go's own allocator does.
func NewBlock(n int) Block {
	b, err := unix.Mmap(-1, 0, max(4096, (n+4095)&^4095), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		panic("worker: out of memory: " + err.Error())
	}
	return b
}

// Address returns where the block begins.
func (b Block) Address() uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// AtLeast returns b, or a larger block in its place, which holds nothing of
// it.
func (b Block) AtLeast(n int) Block {
	if n <= len(b) && b != nil {
		return b
	}
	b.Free()
	return NewBlock(n)
}

// Free gives the memory back.
func (b Block) Free() {
	if b != nil {
		_ = unix.Munmap(b)
	}
}
