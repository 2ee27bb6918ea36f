package onnx

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// block is memory outside the Go heap.
type block []byte

// newBlock returns zeroed memory of at least n bytes, aligned to a page. It
// panics when the process has no memory left, as Go's own allocator does.
func newBlock(n int) block {
	b, err := unix.Mmap(-1, 0, max(4096, (n+4095)&^4095), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		panic("onnx: out of memory: " + err.Error())
	}
	return b
}

func (b block) address() uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// atLeast returns b, or a larger block in its place.
func (b block) atLeast(n int) block {
	if n <= len(b) {
		return b
	}
	if b != nil {
		_ = unix.Munmap(b)
	}
	return newBlock(n + n/2)
}

// cstring copies a string for the library; it is never freed.
func cstring(s string) block {
	b := newBlock(len(s) + 1)
	copy(b, s)
	return b
}

// words is an array of pointers or int64 outside the Go heap.
type words []uintptr

func newWords(n int) words {
	b := newBlock(8 * max(n, 1))
	return unsafe.Slice((*uintptr)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/8)
}

func (w words) address() uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(w))) }
