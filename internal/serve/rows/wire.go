package rows

import (
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// errWire means that the file is no well-formed protobuf of an ONNX model.
var errWire = errors.New("not a well-formed ONNX model")

// Bounds of what is read. Weights are skipped, not read.
const (
	maxText   = 4096    // bytes of a name
	maxNodes  = 1 << 18 // of a graph
	maxArgs   = 4096    // inputs, outputs or attributes of a node
	maxValues = 256     // elements of a constant whose values matter
	maxRank   = 32
	window    = 64 << 10
)

// file reads a model's bytes through a window.
type file struct {
	r    io.ReaderAt
	size int64
	buf  []byte
	at   int64 // of buf in the file
}

// bytes returns n bytes at an offset, at most window, valid until the next call.
func (f *file) bytes(at int64, n int) ([]byte, error) {
	if at < f.at || at+int64(n) > f.at+int64(len(f.buf)) {
		f.buf = f.buf[:cap(f.buf)]
		if len(f.buf) == 0 {
			f.buf = make([]byte, window)
		}
		got, err := f.r.ReadAt(f.buf[:min(int64(window), f.size-at)], at)
		f.at, f.buf = at, f.buf[:got]
		if got < n {
			return nil, fmt.Errorf("read the model: %w", err)
		}
	}
	from := int(at - f.at)
	return f.buf[from : from+n], nil
}

// message is a part of the file that holds a protobuf message.
type message struct {
	f       *file
	at, end int64
}

// field is one field of a message.
type field struct {
	number protowire.Number
	kind   protowire.Type
	value  uint64  // of a number
	sub    message // of what has a length
}

// each calls visit with every field.
func (m message) each(visit func(field) error) error {
	for m.at < m.end {
		var v field
		head, err := m.f.bytes(m.at, int(min(20, m.end-m.at)))
		if err != nil {
			return err
		}
		number, kind, n := protowire.ConsumeTag(head)
		if n < 0 {
			return errWire
		}
		v.number, v.kind = number, kind
		rest := head[n:]
		size := 0
		switch kind {
		case protowire.VarintType:
			v.value, size = protowire.ConsumeVarint(rest)
		case protowire.Fixed32Type:
			var x uint32
			x, size = protowire.ConsumeFixed32(rest)
			v.value = uint64(x)
		case protowire.Fixed64Type:
			v.value, size = protowire.ConsumeFixed64(rest)
		case protowire.BytesType:
			var length uint64
			if length, size = protowire.ConsumeVarint(rest); size >= 0 {
				from := m.at + int64(n) + int64(size)
				if length > uint64(m.end-from) {
					return errWire
				}
				v.sub = message{m.f, from, from + int64(length)}
				size += int(length)
			}
		default:
			return errWire
		}
		if size < 0 {
			return errWire
		}
		m.at += int64(n) + int64(size)
		if err := visit(v); err != nil {
			return err
		}
	}
	return nil
}

func (m message) len() int64 { return m.end - m.at }

// text returns a field's string.
func (v *field) text() (string, error) {
	if v.kind != protowire.BytesType || v.sub.len() > maxText {
		return "", errWire
	}
	b, err := v.sub.f.bytes(v.sub.at, int(v.sub.len()))
	return string(b), err
}

// varint returns a field's number.
func (v *field) varint() (int64, error) {
	if v.kind != protowire.VarintType {
		return 0, errWire
	}
	return int64(v.value), nil
}

// embedded returns a field's message.
func (v *field) embedded() (message, error) {
	if v.kind != protowire.BytesType {
		return message{}, errWire
	}
	return v.sub, nil
}

// numbers appends a repeated field of numbers, packed or not, as the bits of its
// elements: varints, or with size 4 fixed numbers of 32 bits.
func (v *field) numbers(list []uint64, size int) ([]uint64, error) {
	switch {
	case v.kind == protowire.VarintType && size == 0, v.kind == protowire.Fixed32Type && size == 4:
		return append(list, v.value), nil
	case v.kind != protowire.BytesType:
		return nil, errWire
	}
	if v.sub.len() > window {
		return nil, errWire
	}
	b, err := v.sub.f.bytes(v.sub.at, int(v.sub.len()))
	if err != nil {
		return nil, err
	}
	for len(b) > 0 {
		var x uint64
		n := 0
		switch size {
		case 0:
			x, n = protowire.ConsumeVarint(b)
		default:
			var half uint32
			half, n = protowire.ConsumeFixed32(b)
			x = uint64(half)
		}
		if n < 0 {
			return nil, errWire
		}
		list, b = append(list, x), b[n:]
	}
	return list, nil
}
