package rpc

import (
	"encoding/binary"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/tensor"
)

// Numbers of the lists of InferTensorContents.
const (
	boolList protowire.Number = iota + 1
	intList
	int64List
	uintList
	uint64List
	fp32List
	fp64List
	bytesList
)

// listOf is the list that holds a type's elements; 0 for those that go raw only.
func listOf(d tensor.DataType) protowire.Number {
	switch d {
	case tensor.Bool:
		return boolList
	case tensor.Int8, tensor.Int16, tensor.Int32:
		return intList
	case tensor.Int64:
		return int64List
	case tensor.Uint8, tensor.Uint16, tensor.Uint32:
		return uintList
	case tensor.Uint64:
		return uint64List
	case tensor.FP32:
		return fp32List
	case tensor.FP64:
		return fp64List
	case tensor.Bytes:
		return bytesList
	}
	return 0
}

// contents is an InferTensorContents whose elements are looked at when they go
// into their slot.
type contents struct {
	message []byte
	lists   uint16 // a bit for each list that has elements
	strings int    // bytes of all byte strings with their lengths
}

func (c *contents) parse(b []byte) error {
	*c = contents{message: b}
	return fields(b, func(number protowire.Number, kind protowire.Type, _ uint64, bytes []byte) error {
		if number < boolList || number > bytesList {
			return nil
		}
		if number == bytesList && kind == protowire.BytesType {
			c.strings += 4 + len(bytes)
		}
		if kind != protowire.BytesType || len(bytes) > 0 || number == bytesList {
			c.lists |= 1 << number
		}
		return nil
	})
}

// source returns where core reads an input's elements from.
func (in *input) source() (core.Source, error) {
	if in.isRaw {
		return core.Bytes(in.raw), nil
	}
	list := listOf(in.kind)
	if list == 0 {
		return nil, fmt.Errorf("%w: input %q: elements of %s travel in raw_input_contents only", core.ErrInvalid, in.name, in.kind)
	}
	if other := in.contents.lists &^ (1 << list); other != 0 {
		return nil, fmt.Errorf("%w: input %q: its elements are in a list of contents that is not the one for %s", core.ErrInvalid, in.name, in.kind)
	}
	return in, nil
}

// Size implements core.Sized.
func (in *input) Size() int { return in.contents.strings }

// Put implements core.Source.
func (in *input) Put(dst []byte) error {
	list, size := listOf(in.kind), in.kind.Size()
	left := dst
	err := fields(in.contents.message, func(number protowire.Number, kind protowire.Type, value uint64, bytes []byte) (err error) {
		if number != list {
			return nil
		}
		switch {
		case list == bytesList && kind == protowire.BytesType:
			if 4+len(bytes) > len(left) {
				return errTooMany
			}
			binary.LittleEndian.PutUint32(left, uint32(len(bytes)))
			left = left[4+copy(left[4:], bytes):]
		case kind == protowire.BytesType && (list == fp32List || list == fp64List):
			if len(bytes) > len(left) || len(bytes)%size != 0 {
				return errTooMany
			}
			left = left[copy(left, bytes):]
		case kind == protowire.BytesType:
			for len(bytes) > 0 {
				v, n := protowire.ConsumeVarint(bytes)
				if n < 0 {
					return fmt.Errorf("%w: %w", tensor.ErrData, protowire.ParseError(n))
				}
				if left, err = put(left, in.kind, v); err != nil {
					return err
				}
				bytes = bytes[n:]
			}
		default:
			left, err = put(left, in.kind, value)
		}
		return err
	})
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%w: contents have %d elements too few", tensor.ErrData, len(left)/max(size, 1))
	}
	return err
}

var errTooMany = fmt.Errorf("%w: contents have more elements than the shape needs", tensor.ErrData)

// put writes one element, which comes as a varint or as the bits of a float.
func put(dst []byte, d tensor.DataType, v uint64) ([]byte, error) {
	size := d.Size()
	if size == 0 || len(dst) < size {
		return dst, errTooMany
	}
	fits := true
	switch d {
	case tensor.Bool:
		dst[0] = byte(min(v, 1))
		return dst[1:], nil
	case tensor.Int8:
		fits = int64(v) >= math.MinInt8 && int64(v) <= math.MaxInt8
	case tensor.Int16:
		fits = int64(v) >= math.MinInt16 && int64(v) <= math.MaxInt16
	case tensor.Int32:
		fits = int64(v) >= math.MinInt32 && int64(v) <= math.MaxInt32
	case tensor.Uint8:
		fits = v <= math.MaxUint8
	case tensor.Uint16:
		fits = v <= math.MaxUint16
	case tensor.Uint32:
		fits = v <= math.MaxUint32
	}
	if !fits {
		return dst, fmt.Errorf("%w: an element is out of the range of %s", tensor.ErrData, d)
	}
	switch size {
	case 1:
		dst[0] = byte(v)
	case 2:
		binary.LittleEndian.PutUint16(dst, uint16(v))
	case 4:
		binary.LittleEndian.PutUint32(dst, uint32(v))
	case 8:
		binary.LittleEndian.PutUint64(dst, v)
	}
	return dst[size:], nil
}
