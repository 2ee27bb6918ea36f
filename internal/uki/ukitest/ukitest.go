package ukitest

import "encoding/binary"

// Stub is the smallest PE32+ image for amd64 that has room for more sections, in
// place of systemd's stub (Microsoft PE Format).
func Stub() []byte {
	const header, optional = 0x80, 0x80 + 24
	stub := make([]byte, 0x400)
	copy(stub, "MZ")
	binary.LittleEndian.PutUint32(stub[0x3c:], header)
	copy(stub[header:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(stub[header+4:], 0x8664)
	binary.LittleEndian.PutUint16(stub[header+20:], 240) // size of the optional header
	binary.LittleEndian.PutUint16(stub[optional:], 0x20b)
	for at, v := range map[int]uint32{
		32: 0x1000, 36: 0x200, // alignment of sections, of files
		56: 0x1000, 60: 0x400, // size of the image, of the headers
		108: 16, // data directories
	} {
		binary.LittleEndian.PutUint32(stub[optional+at:], v)
	}
	return stub
}
