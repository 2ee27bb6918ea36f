package tensor

import (
	"encoding/binary"
	"fmt"
)

// Strings calls yield with each byte string of a BYTES tensor, which lie one
// after the other, each behind its length in four bytes, as the protocol's
// binary form has them. Each length is read once, for the memory may be shared
// with a process that changes it. Errors wrap ErrData.
func Strings(data []byte, elements int, yield func([]byte) error) error {
	for i := range elements {
		if len(data) < 4 {
			return fmt.Errorf("%w: byte string %d of %d is cut off", ErrData, i, elements)
		}
		n := uint64(binary.LittleEndian.Uint32(data))
		if data = data[4:]; n > uint64(len(data)) {
			return fmt.Errorf("%w: byte string %d of %d has %d bytes, %d are left", ErrData, i, elements, n, len(data))
		}
		if err := yield(data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	if len(data) > 0 {
		return fmt.Errorf("%w: %d bytes follow %d byte strings", ErrData, len(data), elements)
	}
	return nil
}

// AppendString appends one byte string to a BYTES tensor.
func AppendString(dst, s []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(dst, uint32(len(s))), s...)
}
