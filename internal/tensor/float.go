package tensor

import (
	"math"
	"strconv"
)

var powersOfTen = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

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
// are computed in 64 bits: six digits, or the few more that it takes for the number to
// be read as the same float32. Where 64 bits cannot tell the nearer of two, as above,
// and for the very large and small, strconv does it.
func appendFloat32(dst []byte, f float32) []byte {
	v := math.Abs(float64(f))
	if !(v >= 1e-4 && v < 1e6) {
		return strconv.AppendFloat(dst, float64(f), 'g', -1, 32)
	}
	decimals := 9 // of six digits
	for _, power := range [...]float64{1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2, 1e3, 1e4, 1e5} {
		if v >= power {
			decimals--
		}
	}
	for most := decimals + 3; decimals <= most; decimals++ {
		scaled := v * powersOfTen[decimals]
		whole := math.Floor(scaled)
		const near = 1e-6 // of numbers below 1e9
		switch rest := scaled - whole; {
		case rest > 0.5+near:
			whole++
		case rest >= 0.5-near:
			return strconv.AppendFloat(dst, float64(f), 'g', -1, 32)
		}
		back := whole / powersOfTen[decimals]
		if unclear(back) {
			break
		}
		if float32(back) == float32(v) {
			if f < 0 {
				dst = append(dst, '-')
			}
			return appendDecimal(dst, uint64(whole), decimals)
		}
	}
	return strconv.AppendFloat(dst, float64(f), 'g', -1, 32)
}

// unclear reports whether a number is so near to the middle between two float32
// that rounding it to 32 bits may be wrong, where it is off by two units of its last
// place.
func unclear(f float64) bool {
	const low, middle, near = 1<<29 - 1, 1 << 28, 4
	tail := math.Float64bits(f) & low
	return tail > middle-near && tail < middle+near
}

// appendDecimal appends a number with so many decimals, without zeros at its end.
func appendDecimal(dst []byte, n uint64, decimals int) []byte {
	for decimals > 0 && n%10 == 0 {
		n /= 10
		decimals--
	}
	var text [24]byte
	at := len(text)
	for i := 0; n > 0 || i <= decimals; i++ {
		if i == decimals && i > 0 {
			at--
			text[at] = '.'
		}
		at--
		text[at] = '0' + byte(n%10)
		n /= 10
	}
	return append(dst, text[at:]...)
}
