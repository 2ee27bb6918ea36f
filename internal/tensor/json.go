package tensor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unsafe"
)

// ErrData is wrapped by every refusal of a tensor's JSON elements.
var ErrData = errors.New("wrong tensor data")

const maxDepth = MaxRank + 1

// ParseJSON reads a JSON array of numbers (of booleans for BOOL), flat or
// nested, in row-major order, into dst as little-endian elements of type d.
// The array must hold exactly len(dst)/d.Size() elements. Numbers are rounded
// to the nearest value of the type (as strconv.ParseFloat does with 32 and 64
// bits), and may be NaN, Infinity or Inf as Triton reads them; integers must be
// whole and in range. Byte strings are ParseStrings' matter. Errors wrap ErrData.
func ParseJSON(dst []byte, d DataType, data []byte) error {
	if !d.HasJSON() || d == Bytes {
		return fmt.Errorf("%w: %s elements cannot be written as JSON: send them as binary", ErrData, d)
	}
	p := elements{data: data, dst: dst, kind: d, size: d.Size()}
	if err := p.walk(p.element); err != nil {
		return err
	}
	if p.done != len(dst) {
		return fmt.Errorf("%w: got %d elements, the shape needs %d", ErrData, p.done/p.size, len(dst)/p.size)
	}
	return nil
}

// elements is the state of one ParseJSON.
type elements struct {
	data []byte
	at   int
	dst  []byte
	done int // bytes of dst
	kind DataType
	size int
}

func (p *elements) fail(what string) error {
	return fmt.Errorf("%w: %s at byte %d of the array", ErrData, what, p.at)
}

func (p *elements) skipSpace() {
	for p.at < len(p.data) && isSpace(p.data[p.at]) {
		p.at++
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

// walk reads the array and nothing behind it; element takes each value.
func (p *elements) walk(element func() error) error {
	if err := p.array(element); err != nil {
		return err
	}
	if p.skipSpace(); p.at != len(p.data) {
		return p.fail("something follows the array")
	}
	return nil
}

func (p *elements) array(element func() error) error {
	depth := 0
	for value := true; ; {
		p.skipSpace()
		if p.at == len(p.data) {
			return p.fail("the array is cut off")
		}
		c := p.data[p.at]
		switch {
		case c == '[' && value:
			p.at++
			if depth++; depth > maxDepth {
				return p.fail("the array is nested too deeply")
			}
			if p.skipSpace(); p.at < len(p.data) && p.data[p.at] == ']' {
				value = false
			}
		case c == ']' && !value:
			p.at++
			if depth--; depth == 0 {
				return nil
			}
		case c == ',' && !value:
			p.at++
			value = true
		case value && depth > 0:
			if err := element(); err != nil {
				return err
			}
			value = false
		default:
			return p.fail(fmt.Sprintf("unexpected %q", c))
		}
	}
}

func (p *elements) element() error {
	if p.done+p.size > len(p.dst) {
		return p.tooMany()
	}
	if p.kind == FP32 {
		return p.float32s()
	}
	out := p.dst[p.done : p.done+p.size]
	p.done += p.size
	switch p.kind {
	case FP64:
		f, ok := p.notFinite()
		var err error
		if !ok {
			f, err = strconv.ParseFloat(view(p.token()), 64)
		}
		if err != nil {
			return p.fail("not an FP64 number")
		}
		binary.LittleEndian.PutUint64(out, math.Float64bits(f))
		return nil
	case Bool:
		return p.boolean(out)
	default:
		return p.integer(out)
	}
}

func (p *elements) tooMany() error {
	return fmt.Errorf("%w: more than the %d elements that the shape needs", ErrData, len(p.dst)/p.size)
}

// token takes the next number as the JSON grammar allows it, or nothing.
func (p *elements) token() []byte {
	start, at := p.at, p.at
	digits := func() bool {
		from := at
		for at < len(p.data) && p.data[at]-'0' <= 9 {
			at++
		}
		return at > from
	}
	has := func(chars string) bool {
		if at < len(p.data) && (p.data[at] == chars[0] || p.data[at] == chars[len(chars)-1]) {
			at++
			return true
		}
		return false
	}
	has("-")
	first := at
	ok := digits() && (p.data[first] != '0' || at == first+1)
	if ok && has(".") {
		ok = digits()
	}
	if ok && has("eE") {
		has("+-")
		ok = digits()
	}
	if !ok {
		return nil
	}
	p.at = at
	return p.data[start:at]
}

// view lends bytes as a string for the time of a call.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func (p *elements) boolean(out []byte) error {
	for i, word := range [...]string{"false", "true", "0", "1"} {
		if end := p.at + len(word); end <= len(p.data) && string(p.data[p.at:end]) == word {
			p.at, out[0] = end, byte(i&1)
			return nil
		}
	}
	return p.fail("neither true nor false")
}

func (p *elements) integer(out []byte) error {
	start := p.at
	text := view(p.token())
	bits := 8 * p.size
	var v uint64
	var err error
	if p.kind >= Uint8 && p.kind <= Uint64 {
		v, err = strconv.ParseUint(text, 10, bits)
	} else {
		var i int64
		i, err = strconv.ParseInt(text, 10, bits)
		v = uint64(i)
	}
	if err != nil {
		p.at = start
		return p.fail(fmt.Sprintf("not a whole number of the range of %s", p.kind))
	}
	switch p.size {
	case 1:
		out[0] = byte(v)
	case 2:
		binary.LittleEndian.PutUint16(out, uint16(v))
	case 4:
		binary.LittleEndian.PutUint32(out, uint32(v))
	default:
		binary.LittleEndian.PutUint64(out, v)
	}
	return nil
}

// notFinite takes what RapidJSON reads besides numbers, and with it Triton:
// NaN, Inf and Infinity, with a sign or without.
func (p *elements) notFinite() (float64, bool) {
	at, sign := p.at, 1
	if at < len(p.data) && p.data[at] == '-' {
		at, sign = at+1, -1
	}
	if at == len(p.data) || p.data[at] != 'N' && p.data[at] != 'I' {
		return 0, false
	}
	for _, word := range [...]string{"NaN", "Infinity", "Inf"} {
		if end := at + len(word); end <= len(p.data) && string(p.data[at:end]) == word {
			p.at = end
			if word == "NaN" {
				return math.NaN(), true
			}
			return math.Inf(sign), true
		}
	}
	return 0, false
}

// AppendJSON appends the elements as a flat JSON array. What JSON has no number
// for is written as Triton does: NaN, Infinity and -Infinity.
func AppendJSON(dst []byte, d DataType, raw []byte) ([]byte, error) {
	if !d.HasJSON() {
		return nil, fmt.Errorf("%w: %s elements cannot be written as JSON: ask for binary output", ErrData, d)
	}
	dst = append(dst, '[')
	if d == Bytes {
		return appendStrings(dst, raw)
	}
	size := d.Size()
	for at := 0; at+size <= len(raw); at += size {
		if at > 0 {
			dst = append(dst, ',')
		}
		dst = appendElement(dst, d, raw[at:at+size])
	}
	return append(dst, ']'), nil
}

func appendElement(dst []byte, d DataType, e []byte) []byte {
	le := binary.LittleEndian
	switch d {
	case FP32:
		f := math.Float32frombits(le.Uint32(e))
		if notFinite(float64(f)) {
			return appendNotFinite(dst, float64(f))
		}
		return appendFloat32(dst, f)
	case FP64:
		f := math.Float64frombits(le.Uint64(e))
		if notFinite(f) {
			return appendNotFinite(dst, f)
		}
		return strconv.AppendFloat(dst, f, 'g', -1, 64)
	case Bool:
		return strconv.AppendBool(dst, e[0] != 0)
	case Uint8:
		return strconv.AppendUint(dst, uint64(e[0]), 10)
	case Uint16:
		return strconv.AppendUint(dst, uint64(le.Uint16(e)), 10)
	case Uint32:
		return strconv.AppendUint(dst, uint64(le.Uint32(e)), 10)
	case Uint64:
		return strconv.AppendUint(dst, le.Uint64(e), 10)
	case Int8:
		return strconv.AppendInt(dst, int64(int8(e[0])), 10)
	case Int16:
		return strconv.AppendInt(dst, int64(int16(le.Uint16(e))), 10)
	case Int32:
		return strconv.AppendInt(dst, int64(int32(le.Uint32(e))), 10)
	default:
		return strconv.AppendInt(dst, int64(le.Uint64(e)), 10)
	}
}

func notFinite(f float64) bool { return f-f != 0 }

func appendNotFinite(dst []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, "NaN"...)
	case f > 0:
		return append(dst, "Infinity"...)
	}
	return append(dst, "-Infinity"...)
}
