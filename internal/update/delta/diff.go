package delta

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// A rebuilt program differs from the old one in many small places: addresses,
// which changed by the same few numbers. Where data is aligned with the old and
// subtracted from it byte by byte, those places become equal bytes between
// zeros (C. Percival, Naive Differences of Executable Code). In such a part the
// frame holds a script and then as many bytes as the part makes; the script says
// what of them is added to which old bytes, as unsigned varints: a length to
// leave as it is, a length to add, and, when that is not 0, where the old bytes
// begin, counted from the end of the last ones and zigzag-coded.

// errScript is returned for a script that does not fit its data.
var errScript = errors.New("the script of a part does not fit it")

// addOld undoes the subtraction in place.
func addOld(made, script, old []byte) error {
	at, from := 0, int64(0)
	for len(script) > 0 {
		var plain, add, move uint64
		for _, v := range []*uint64{&plain, &add} {
			n := 0
			if *v, n = binary.Uvarint(script); n <= 0 {
				return errScript
			}
			script = script[n:]
		}
		if plain > uint64(len(made)-at) || add > uint64(len(made)-at)-plain {
			return errScript
		}
		at += int(plain)
		if add == 0 {
			continue
		}
		n := 0
		if move, n = binary.Uvarint(script); n <= 0 {
			return errScript
		}
		script = script[n:]
		from += int64(move>>1) ^ -int64(move&1)
		if from < 0 || from > int64(len(old)) || add > uint64(len(old))-uint64(from) {
			return errScript
		}
		for i, b := range old[from : from+int64(add)] {
			made[at+i] += b
		}
		at, from = at+int(add), from+int64(add)
	}
	return nil
}

// Lengths by which new data is aligned with old.
const (
	anchor     = 24 // equal bytes that make an alignment
	looking    = 64 // bytes over which an alignment must go on being good
	every      = 8  // bytes between places of the old that are remembered
	mostAnchor = 21 // bits of the number of them
)

// subtractOld aligns data with old and subtracts it, returning the script and
// the rest.
func subtractOld(data, old []byte) (script, rest []byte) {
	rest = append([]byte(nil), data...)
	size := min(mostAnchor, bits.Len(uint(len(old)/every))) // bits
	table := anchorsOf(old, size)
	at, from := 0, 0 // ends of the last aligned data
	for i := 0; i+anchor <= len(data); {
		o := int(table[hash(data[i:], size)]) - 1
		if o < 0 || !equal(data[i:i+anchor], old[o:]) {
			i++
			continue
		}
		start, begin := i, o
		for start > at && begin > 0 && data[start-1] == old[begin-1] {
			start, begin = start-1, begin-1
		}
		n := alignedLength(data[start:], old[begin:])
		script = binary.AppendUvarint(script, uint64(start-at))
		script = binary.AppendUvarint(script, uint64(n))
		move := int64(begin - from)
		script = binary.AppendUvarint(script, uint64(move<<1)^uint64(move>>63))
		for j := range n {
			rest[start+j] -= old[begin+j]
		}
		at, from = start+n, begin+n
		i = at
	}
	return script, rest
}

// alignedLength is how far two stay alike: it ends where most of the next bytes
// differ, and behind the last equal ones before that.
func alignedLength(data, old []byte) int {
	limit, best, score, top := min(len(data), len(old)), 0, 0, 0
	for i := range limit {
		if data[i] == old[i] {
			score++
		} else {
			score--
		}
		if score > top {
			top, best = score, i+1
		}
		if score < top-looking/2 {
			break
		}
	}
	return best
}

// anchorsOf remembers by their hash, of size bits, where old bytes are; 0 for
// none.
func anchorsOf(old []byte, size int) []int32 {
	table := make([]int32, 1<<size)
	for o := 0; o+anchor <= len(old); o += every {
		table[hash(old[o:], size)] = int32(o) + 1
	}
	return table
}

// hash mixes 24 bytes into size bits.
func hash(b []byte, size int) uint32 {
	h := binary.LittleEndian.Uint64(b) * 0x9e3779b97f4a7c15
	h = (bits.RotateLeft64(h, 29) ^ binary.LittleEndian.Uint64(b[8:])) * 0x9e3779b97f4a7c15
	h = (bits.RotateLeft64(h, 29) ^ binary.LittleEndian.Uint64(b[16:])) * 0x9e3779b97f4a7c15
	return uint32(h >> (64 - size))
}

func equal(a, b []byte) bool { return string(a) == string(b[:len(a)]) }
