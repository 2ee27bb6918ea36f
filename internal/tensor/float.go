package tensor

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"
)

var powersOfTen = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

var wholePowers = [...]uint64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13}

// float32 takes the next number, rounded as strconv.ParseFloat(…, 32) rounds
// it. Most numbers are computed in 64 bits: with up to 19 digits and a power of
// ten that is exact, the result is off by less than two units of its last
// place, so rounding it to 32 bits is right unless it lies within a few units
// of the middle between two float32. Those, and the very large and small, go to
// strconv.
func (p *elements) float32() (float32, error) {
	data, start, at := p.data, p.at, p.at
	negative := at < len(data) && data[at] == '-'
	if negative {
		at++
	}
	first := at
	var mantissa uint64
	for at < len(data) && data[at]-'0' <= 9 {
		mantissa = mantissa*10 + uint64(data[at]-'0')
		at++
	}
	digits := at - first
	if digits == 0 {
		if f, ok := p.notFinite(); ok {
			return float32(f), nil
		}
	}
	if digits == 0 || (data[first] == '0' && digits > 1) {
		return 0, p.fail("not a number")
	}
	exponent := 0
	if at < len(data) && data[at] == '.' {
		at++
		from := at
		if n, ok := eightDigits(data[at:]); ok {
			mantissa = mantissa*100_000_000 + n
			at += 8
		}
		for at < len(data) && data[at]-'0' <= 9 {
			mantissa = mantissa*10 + uint64(data[at]-'0')
			at++
		}
		if exponent = from - at; exponent == 0 {
			return 0, p.fail("not a number")
		}
		digits -= exponent
	}
	if digits > 19 || (at < len(data) && data[at]|0x20 == 'e') || exponent < -22 {
		return p.slowFloat32(start)
	}
	f := float64(mantissa) / powersOfTen[-exponent]
	if unclear(f) || f > math.MaxFloat32 || (f < 0x1p-126 && mantissa != 0) {
		return p.slowFloat32(start)
	}
	p.at = at
	if negative {
		f = -f
	}
	return float32(f), nil
}

// float32s takes numbers, as long as nothing but a comma is between them.
func (p *elements) float32s() error {
	for {
		f, err := p.float32()
		if err != nil {
			return err
		}
		binary.LittleEndian.PutUint32(p.dst[p.done:], math.Float32bits(f))
		p.done += 4
		rest := p.data[p.at:]
		if len(rest) < 2 || rest[0] != ',' || rest[1]-'0' > 9 && rest[1] != '-' {
			return nil
		}
		if p.at++; p.done+4 > len(p.dst) {
			return p.tooMany()
		}
	}
}

// eightDigits reads the number that eight digits make, if b begins with that many.
func eightDigits(b []byte) (n uint64, ok bool) {
	if len(b) < 8 {
		return 0, false
	}
	const zeros, high, nibbles = 0x3030303030303030, 0xf0f0f0f0f0f0f0f0, 0x0606060606060606
	v := binary.LittleEndian.Uint64(b)
	if v&high != zeros || (v+nibbles)&high != zeros {
		return 0, false
	}
	// Pairs of digits, then of pairs, then of those.
	v = (v & 0x0f0f0f0f0f0f0f0f) * (10<<8 + 1) >> 8
	v = (v & 0x00ff00ff00ff00ff) * (100<<16 + 1) >> 16
	v = (v & 0x0000ffff0000ffff) * (10000<<32 + 1) >> 32
	return v, true
}

func (p *elements) slowFloat32(start int) (float32, error) {
	p.at = start
	f, err := strconv.ParseFloat(view(p.token()), 32)
	if err != nil {
		p.at = start
		return 0, p.fail("not an FP32 number")
	}
	return float32(f), nil
}

// appendFloat32 appends a number as strconv.AppendFloat(…, 'g', -1, 32) does. Most
// are computed in 64 bits: as few digits, from six on, as it takes for the number to be
// read as the same float32. Where 64 bits cannot tell the nearer of two, as above,
// and for the very large and small, strconv does it.
func appendFloat32(dst []byte, f float32) []byte {
	v := math.Abs(float64(f))
	if !(v >= 1e-4 && v < 1e6) {
		return strconv.AppendFloat(dst, float64(f), 'g', -1, 32)
	}
	decimals := 11 // of eight digits
	for _, power := range [...]float64{1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2, 1e3, 1e4, 1e5} {
		if v < power {
			break
		}
		decimals--
	}
	// Where some digits are enough, so are more: eight are the most likely to be the
	// fewest.
	whole, enough, clear := rounded(v, decimals)
	if most := decimals; enough {
		for fewest := most - 2; clear && decimals > fewest; decimals-- {
			var less uint64
			if less, enough, clear = rounded(v, decimals-1); !enough {
				break
			}
			whole = less
		}
	} else if clear {
		decimals++
		if whole, enough, clear = rounded(v, decimals); !enough {
			clear = false
		}
	}
	if !clear {
		return strconv.AppendFloat(dst, float64(f), 'g', -1, 32)
	}
	if f < 0 {
		dst = append(dst, '-')
	}
	return appendDecimal(dst, whole, decimals)
}

// rounded is a number below 1e9 with so many decimals, and whether that is read as the
// same float32. It is not clear where 64 bits cannot tell.
func rounded(v float64, decimals int) (whole uint64, enough, clear bool) {
	scaled := v * powersOfTen[decimals]
	whole = uint64(scaled)
	const near = 1e-6
	switch rest := scaled - float64(whole); {
	case rest > 0.5+near:
		whole++
	case rest >= 0.5-near:
		return 0, false, false
	}
	back := float64(whole) / powersOfTen[decimals]
	return whole, float32(back) == float32(v), !unclear(back)
}

// unclear reports whether a number is so near to the middle between two float32
// that rounding it to 32 bits may be wrong, where it is off by two units of its last
// place.
func unclear(f float64) bool {
	const low, middle, near = 1<<29 - 1, 1 << 28, 4
	tail := math.Float64bits(f) & low
	return tail > middle-near && tail < middle+near
}

// appendDecimal appends a number below 1e9 that has so many decimals, 13 at most,
// without zeros at its end.
func appendDecimal(dst []byte, n uint64, decimals int) []byte {
	power := wholePowers[decimals]
	whole, rest := n/power, n%power
	if whole < 10 {
		dst = append(dst, '0'+byte(whole))
	} else {
		dst = strconv.AppendUint(dst, whole, 10)
	}
	if rest == 0 {
		return dst
	}
	dst = append(dst, '.')
	if decimals > 8 {
		for ; decimals > 9; decimals-- {
			dst = append(dst, '0')
		}
		const eight = 100_000_000
		dst = append(dst, '0'+byte(rest/eight))
		rest, decimals = rest%eight, 8
		if rest == 0 {
			return dst
		}
	}
	// Eight digits at once, a byte each, the first in the lowest.
	rest *= wholePowers[8-decimals]
	v := rest/10_000 | rest%10_000<<32
	hundreds := v * 10486 >> 20 & 0x0000007f_0000007f
	v = hundreds | (v-100*hundreds)<<16
	tens := v * 103 >> 10 & 0x000f000f_000f000f
	v = tens | (v-10*tens)<<8
	digits := 8 - bits.LeadingZeros64(v)/8
	var text [8]byte
	binary.LittleEndian.PutUint64(text[:], v|0x30303030_30303030)
	return append(dst, text[:digits]...)
}
