package tensor

import "fmt"

// DataType is an element type, named as in the Open Inference Protocol v2.
type DataType uint8

// The data types. Invalid is the zero value.
const (
	Invalid DataType = iota
	Bool
	Uint8
	Uint16
	Uint32
	Uint64
	Int8
	Int16
	Int32
	Int64
	FP16
	FP32
	FP64
	BF16
	Bytes // byte strings, each behind its length in four bytes
	numDataTypes
)

var dataTypes = [numDataTypes]struct {
	name string
	size int
}{
	Invalid: {"INVALID", 0},
	Bool:    {"BOOL", 1},
	Uint8:   {"UINT8", 1}, Uint16: {"UINT16", 2}, Uint32: {"UINT32", 4}, Uint64: {"UINT64", 8},
	Int8: {"INT8", 1}, Int16: {"INT16", 2}, Int32: {"INT32", 4}, Int64: {"INT64", 8},
	FP16: {"FP16", 2}, FP32: {"FP32", 4}, FP64: {"FP64", 8}, BF16: {"BF16", 2},
	Bytes: {"BYTES", 0},
}

// String returns the protocol's name, for example FP32.
func (d DataType) String() string {
	if d >= numDataTypes {
		return fmt.Sprintf("DataType(%d)", uint8(d))
	}
	return dataTypes[d].name
}

// Size returns the bytes of one element, 0 for an invalid type and for BYTES,
// whose elements have sizes of their own.
func (d DataType) Size() int {
	if d >= numDataTypes {
		return 0
	}
	return dataTypes[d].size
}

// HasJSON reports whether the protocol lets elements travel as JSON; FP16 and
// BF16 travel only as binary.
func (d DataType) HasJSON() bool { return d != FP16 && d != BF16 && d.Valid() }

// Valid reports whether d is a data type.
func (d DataType) Valid() bool { return d > Invalid && d < numDataTypes }

// ParseDataType reads a protocol name.
func ParseDataType(s string) (DataType, error) {
	for d := Bool; d < numDataTypes; d++ {
		if dataTypes[d].name == s {
			return d, nil
		}
	}
	return Invalid, fmt.Errorf("datatype %q is not supported (BOOL, UINT8…UINT64, INT8…INT64, FP16, BF16, FP32, FP64, BYTES are)", s)
}
