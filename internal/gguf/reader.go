package gguf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
)

// reader reads at most left bytes; after an error it reads nothing more.
type reader struct {
	r    *bufio.Reader
	left int64
	read int64
	buf  [8]byte
	err  error
}

// fail keeps the first error.
func (d *reader) fail(err error) {
	switch {
	case d.err != nil:
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		d.err = bad("it is cut short in its header")
	default:
		d.err = err
	}
}

// spend accounts for the next n bytes and reports whether they may be read.
func (d *reader) spend(n int64) bool {
	if d.err != nil {
		return false
	}
	if n < 0 || n > d.left {
		d.fail(bad("its header has more bytes than the file, or than the %d MiB that are accepted", maxHeader>>20))
		return false
	}
	d.left -= n
	d.read += n
	return true
}

// take returns the next n bytes, at most 8, valid until the next call; nil after
// an error.
func (d *reader) take(n int) []byte {
	if !d.spend(int64(n)) {
		return nil
	}
	if _, err := io.ReadFull(d.r, d.buf[:n]); err != nil {
		d.fail(err)
		return nil
	}
	return d.buf[:n]
}

func (d *reader) skip(n int64) {
	if !d.spend(n) {
		return
	}
	if _, err := io.CopyN(io.Discard, d.r, n); err != nil {
		d.fail(err)
	}
}

func (d *reader) uint32() uint32 {
	if raw := d.take(4); raw != nil {
		return binary.LittleEndian.Uint32(raw)
	}
	return 0
}

func (d *reader) uint64() uint64 {
	if raw := d.take(8); raw != nil {
		return binary.LittleEndian.Uint64(raw)
	}
	return 0
}

// text reads a string of at most limit bytes and returns the first keep of them.
func (d *reader) text(limit, keep uint64) string {
	n := d.uint64()
	if d.err != nil {
		return ""
	}
	if n > limit || n > uint64(d.left) {
		d.fail(bad("it has a string of %d bytes, more than the file can hold", n))
		return ""
	}
	kept := make([]byte, min(n, keep))
	if !d.spend(int64(len(kept))) {
		return ""
	}
	if _, err := io.ReadFull(d.r, kept); err != nil {
		d.fail(err)
		return ""
	}
	d.skip(int64(n) - int64(len(kept)))
	return string(kept)
}
