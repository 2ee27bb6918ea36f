package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

// readGPT reads the primary partition table of a disk (UEFI specification
// §5.3) and checks its sums.
func readGPT(r io.ReaderAt, size int64) (map[string]Partition, error) {
	head := make([]byte, sectorSize)
	if _, err := r.ReadAt(head, sectorSize); err != nil || !bytes.HasPrefix(head, []byte("EFI PART")) {
		return nil, errors.New("it has no partition table")
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(head[at:]) }
	headSize, count, entrySize, start := u32(12), u32(80), u32(84), binary.LittleEndian.Uint64(head[72:])
	sum := u32(16)
	if headSize < 92 || headSize > sectorSize || entrySize < 128 || entrySize > 4096 || count > 1024 || start > uint64(size/sectorSize) {
		return nil, errors.New("its partition table is damaged")
	}
	clear(head[16:20])
	entries := make([]byte, int(count)*int(entrySize))
	if _, err := r.ReadAt(entries, int64(start)*sectorSize); err != nil {
		return nil, fmt.Errorf("its partition table is cut off: %w", err)
	}
	if crc32.ChecksumIEEE(head[:headSize]) != sum || crc32.ChecksumIEEE(entries) != u32(88) {
		return nil, errors.New("its partition table is damaged: a checksum is wrong")
	}
	parts := map[string]Partition{}
	for ; len(entries) >= int(entrySize); entries = entries[entrySize:] {
		if bytes.Equal(entries[:16], make([]byte, 16)) {
			continue
		}
		first, last := binary.LittleEndian.Uint64(entries[32:]), binary.LittleEndian.Uint64(entries[40:])
		name := partitionName(entries[56:128])
		if first > last || last >= uint64(size/sectorSize) {
			return nil, fmt.Errorf("partition %q reaches beyond the end of the file: it was cut off, copy it again", name)
		}
		parts[name] = Partition{Name: name, Start: int64(first) * sectorSize, Size: int64(last-first+1) * sectorSize}
	}
	return parts, nil
}

func partitionName(field []byte) string {
	var name []uint16
	for ; len(field) >= 2; field = field[2:] {
		c := binary.LittleEndian.Uint16(field)
		if c == 0 {
			break
		}
		name = append(name, c)
	}
	return string(utf16.Decode(name))
}
