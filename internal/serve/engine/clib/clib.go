package clib

import (
	"fmt"
	"os"
	"unsafe"

	"github.com/ebitengine/purego"

	"oscine.dev/oscine/internal/serve/worker"
)

// Library is a loaded shared library. It stays loaded for the life of the
// process.
type Library struct {
	handle uintptr
	path   string
}

// Setenv sets variables of the C library's environment, which libraries read
// while they are loaded or at their first call: it comes before Load.
func Setenv(values map[string]string) error {
	for name, value := range values {
		// purego hands this on to the C library's environment as well.
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

// Load loads a library from a path, or by name from the system's paths.
func Load(path string) (*Library, error) {
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("load the engine's library: %w", err)
	}
	return &Library{handle, path}, nil
}

// Func is the address of a C function.
type Func uintptr

// Call calls a function whose arguments and result are integers or pointers.
func (f Func) Call(args ...uintptr) uintptr {
	r, _, _ := purego.SyscallN(uintptr(f), args...)
	return r
}

// Func returns a function by its name.
func (l *Library) Func(name string) (Func, error) {
	address, err := purego.Dlsym(l.handle, name)
	if err != nil {
		return 0, fmt.Errorf("%s is not the library that is expected: %w", l.path, err)
	}
	return Func(address), nil
}

// Bind finds functions by their names.
func (l *Library) Bind(functions map[string]*Func) error {
	for name, f := range functions {
		var err error
		if *f, err = l.Func(name); err != nil {
			return err
		}
	}
	return nil
}

// Pointer turns an address outside the Go heap into a pointer.
func Pointer(address uintptr) unsafe.Pointer {
	return *(*unsafe.Pointer)(unsafe.Pointer(&address))
}

// Bytes is memory of the library's: n bytes from an address.
func Bytes(address uintptr, n int) []byte {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(Pointer(address)), n)
}

// maxText bounds the texts that a library returns.
const maxText = 64 << 10

// Text copies a C string, up to 64 KiB; the null pointer is an empty one.
func Text(address uintptr) string {
	if address == 0 {
		return ""
	}
	b := unsafe.Slice((*byte)(Pointer(address)), maxText)
	n := 0
	for n < len(b) && b[n] != 0 {
		n++
	}
	return string(b[:n])
}

// String copies a string for the library; it is never freed.
func String(s string) uintptr {
	b := worker.NewBlock(len(s) + 1)
	copy(b, s)
	return b.Address()
}

// Words is an array of pointers or 64-bit integers outside the Go heap.
type Words []uintptr

// NewWords returns an array of n zeros, with room for one at least.
func NewWords(n int) Words {
	b := worker.NewBlock(8 * max(n, 1))
	return unsafe.Slice((*uintptr)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/8)
}

// Address returns where the array begins.
func (w Words) Address() uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(w))) }

// Free gives the array back.
func (w Words) Free() {
	if w != nil {
		worker.Block(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w))), 8*len(w))).Free()
	}
}

// At returns the address of an element.
func (w Words) At(i int) uintptr { return w.Address() + uintptr(8*i) }

// Int64s is memory of the library's: n integers from an address.
func Int64s(address uintptr, n int) []int64 {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*int64)(Pointer(address)), n)
}
