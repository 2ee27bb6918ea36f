package tensor

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"unicode/utf8"
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

// ParseStrings reads a JSON array of texts, flat or nested, in row-major order.
// It appends them to dst as the elements of a BYTES tensor, and says how many
// they are. Errors wrap ErrData.
func ParseStrings(dst, data []byte) (out []byte, elements int, err error) {
	p := elementsOf(data)
	err = p.walk(func() error {
		text, err := p.text()
		if err == nil {
			dst = AppendString(dst, text)
			elements++
		}
		return err
	})
	return dst, elements, err
}

// elementsOf begins to read an array whose elements have no fixed size.
func elementsOf(data []byte) *elements { return &elements{data: data, kind: Bytes} }

// text takes a JSON text.
func (p *elements) text() ([]byte, error) {
	start, plain := p.at, true
	if p.at == len(p.data) || p.data[p.at] != '"' {
		return nil, p.fail("not a text")
	}
	for i := p.at + 1; i < len(p.data); i++ {
		switch c := p.data[i]; {
		case c == '"':
			token := p.data[start : i+1]
			p.at = i + 1
			if plain {
				return token[1 : len(token)-1], nil
			}
			var text string
			if json.Unmarshal(token, &text) != nil {
				p.at = start
				return nil, p.fail("not a text")
			}
			return []byte(text), nil
		case c == '\\':
			plain = false
			i++
		case c < ' ':
			p.at = i
			return nil, p.fail("a control character in a string")
		case c >= utf8.RuneSelf:
			plain = false
		}
	}
	return nil, p.fail("a string that does not end")
}

// appendStrings appends the texts of a BYTES tensor and ends their array. JSON
// holds only what is UTF-8.
func appendStrings(dst, raw []byte) ([]byte, error) {
	for first := true; len(raw) > 0; first = false {
		if len(raw) < 4 || uint64(binary.LittleEndian.Uint32(raw)) > uint64(len(raw)-4) {
			return nil, fmt.Errorf("%w: a byte string is cut off", ErrData)
		}
		text := raw[4 : 4+binary.LittleEndian.Uint32(raw)]
		raw = raw[4+len(text):]
		if !utf8.Valid(text) {
			return nil, fmt.Errorf("%w: byte strings that are not UTF-8 cannot be written as JSON: ask for binary output", ErrData)
		}
		quoted, err := json.Marshal(view(text))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrData, err)
		}
		if !first {
			dst = append(dst, ',')
		}
		dst = append(dst, quoted...)
	}
	return append(dst, ']'), nil
}
