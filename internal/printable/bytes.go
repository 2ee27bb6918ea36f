package printable

import "strconv"

// Bytes formats a byte count to three digits: 512 GiB, 1.5 MiB. Manifests and flags accept the same notation
// (see internal/quantity).
func Bytes[N ~int | ~int64 | ~uint64](n N) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	value, unit, sign := float64(n), 0, ""
	if value < 0 {
		value, sign = -value, "-"
	}
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	text := strconv.FormatFloat(value, 'f', 0, 64)
	if value < 100 {
		text = strconv.FormatFloat(value, 'g', 3, 64)
	}
	return sign + text + " " + units[unit]
}
