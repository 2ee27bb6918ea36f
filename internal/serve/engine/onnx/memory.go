package onnx

import (
	"unsafe"

	"oscine.dev/oscine/internal/serve/worker"
)

// cstring copies a string for the library; it is never freed.
func cstring(s string) uintptr {
	b := worker.NewBlock(len(s) + 1)
	copy(b, s)
	return b.Address()
}

// words is an array of pointers or int64 outside the Go heap.
type words []uintptr

func newWords(n int) words {
	b := worker.NewBlock(8 * max(n, 1))
	return unsafe.Slice((*uintptr)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/8)
}

func (w words) address() uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(w))) }
