package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

// Sizes of a GUID partition table (UEFI specification, section 5.3).
const (
	gptSector      = 512 // the only sector size this code rewrites
	gptHeaderSize  = 92
	gptEntrySize   = 128
	gptMaxEntries  = 128
	gptRegion      = 4096          // MBR, header and the first 24 entries
	gptFirstEntry  = 2             // sector of the entry array
	partitionAlign = 1 << 20 / 512 // sectors
)

// ErrNoGPT is returned for a disk whose primary partition table is damaged or
// of a shape Oscine does not write; nothing has been changed then.
var ErrNoGPT = errors.New("no usable primary GPT")

// gptDisk is what growing needs of a disk.
type gptDisk interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// gptTable is a checked primary table held in memory.
type gptTable struct {
	head    []byte // sectors 0 and 1: protective MBR and header
	entries []byte
}

// growLast extends the last partition of the disk, if it has the given name,
// to the end of a disk of size bytes, moving the backup table there. It
// returns the partition's number (1-based), start and length in bytes, and
// whether anything was written.
//
// Power may fail at any point: the backup goes first, to space no partition
// uses, and is flushed; the primary header and the one changed entry then go
// out in a single 4 KiB write. Until that lands the old table is whole.
func growLast(disk gptDisk, size int64, name string) (number int, start, length int64, changed bool, err error) {
	t, err := readGPT(disk)
	if err != nil {
		return 0, 0, 0, false, err
	}
	index, err := t.last(name)
	if err != nil {
		return 0, 0, 0, false, err
	}
	entry := t.entries[index*gptEntrySize:][:gptEntrySize]
	first := binary.LittleEndian.Uint64(entry[32:])
	oldLast := binary.LittleEndian.Uint64(entry[40:])
	lastSector := uint64(size/gptSector) - 1
	arraySectors := uint64(len(t.entries)+gptSector-1) / gptSector
	if lastSector < arraySectors+1 {
		return 0, 0, 0, false, fmt.Errorf("%w: the disk has %d bytes", ErrNoGPT, size)
	}
	lastUsable := lastSector - arraySectors - 1
	newLast := (lastUsable+1)/partitionAlign*partitionAlign - 1
	bytesOf := func(last uint64) int64 { return int64(last-first+1) * gptSector }
	if newLast < oldLast+partitionAlign || newLast < first {
		return index + 1, int64(first) * gptSector, bytesOf(oldLast), false, nil
	}
	if gptFirstEntry*gptSector+(index+1)*gptEntrySize > gptRegion {
		return 0, 0, 0, false, fmt.Errorf("%w: partition %d lies beyond the part rewritten at once", ErrNoGPT, index+1)
	}
	binary.LittleEndian.PutUint64(entry[40:], newLast)
	if err := t.write(disk, lastSector, lastUsable); err != nil {
		return 0, 0, 0, false, err
	}
	return index + 1, int64(first) * gptSector, bytesOf(newLast), true, nil
}

// readGPT reads and checks the primary table.
func readGPT(disk io.ReaderAt) (*gptTable, error) {
	t := &gptTable{head: make([]byte, 2*gptSector)}
	if _, err := disk.ReadAt(t.head, 0); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrNoGPT, err)
	}
	h := t.header()
	if !bytes.Equal(h[:8], []byte("EFI PART")) {
		return nil, fmt.Errorf("%w: signature missing", ErrNoGPT)
	}
	headerSize := binary.LittleEndian.Uint32(h[12:])
	count := binary.LittleEndian.Uint32(h[80:])
	if headerSize != gptHeaderSize || binary.LittleEndian.Uint32(h[84:]) != gptEntrySize ||
		count == 0 || count > gptMaxEntries || count%4 != 0 {
		return nil, fmt.Errorf("%w: unusual header", ErrNoGPT)
	}
	if binary.LittleEndian.Uint64(h[24:]) != 1 || binary.LittleEndian.Uint64(h[72:]) != gptFirstEntry {
		return nil, fmt.Errorf("%w: unusual place", ErrNoGPT)
	}
	if headerCRC(h) != binary.LittleEndian.Uint32(h[16:]) {
		return nil, fmt.Errorf("%w: header checksum is wrong", ErrNoGPT)
	}
	t.entries = make([]byte, count*gptEntrySize)
	if _, err := disk.ReadAt(t.entries, gptFirstEntry*gptSector); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrNoGPT, err)
	}
	if crc32.ChecksumIEEE(t.entries) != binary.LittleEndian.Uint32(h[88:]) {
		return nil, fmt.Errorf("%w: checksum of the entries is wrong", ErrNoGPT)
	}
	return t, nil
}

func (t *gptTable) header() []byte { return t.head[gptSector:] }

// last returns the index of the named entry, which must lie behind all others.
func (t *gptTable) last(name string) (int, error) {
	found, end := -1, uint64(0)
	for i := 0; i*gptEntrySize < len(t.entries); i++ {
		e := t.entries[i*gptEntrySize:][:gptEntrySize]
		last := binary.LittleEndian.Uint64(e[40:])
		if entryName(e) == name && found < 0 {
			found = i
		}
		end = max(end, last)
	}
	if found < 0 {
		return 0, fmt.Errorf("no partition is named %s", name)
	}
	e := t.entries[found*gptEntrySize:]
	first, last := binary.LittleEndian.Uint64(e[32:]), binary.LittleEndian.Uint64(e[40:])
	if last != end || first == 0 || first > last {
		return 0, fmt.Errorf("partition %s is not the last one on the disk", name)
	}
	return found, nil
}

func entryName(e []byte) string {
	var units []uint16
	for i := 56; i < gptEntrySize; i += 2 {
		u := binary.LittleEndian.Uint16(e[i:])
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}

// write stores the backup table at the end of the disk, then the primary.
func (t *gptTable) write(disk gptDisk, lastSector, lastUsable uint64) error {
	h := t.header()
	binary.LittleEndian.PutUint64(h[48:], lastUsable)
	binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(t.entries))

	backup := bytes.Clone(h)
	binary.LittleEndian.PutUint64(backup[24:], lastSector)
	binary.LittleEndian.PutUint64(backup[32:], 1)
	binary.LittleEndian.PutUint64(backup[72:], lastUsable+1)
	binary.LittleEndian.PutUint32(backup[16:], headerCRC(backup))
	if _, err := disk.WriteAt(t.entries, int64(lastUsable+1)*gptSector); err != nil {
		return fmt.Errorf("write backup GPT entries: %w", err)
	}
	if _, err := disk.WriteAt(backup, int64(lastSector)*gptSector); err != nil {
		return fmt.Errorf("write backup GPT: %w", err)
	}
	if err := disk.Sync(); err != nil {
		return fmt.Errorf("flush backup GPT: %w", err)
	}

	binary.LittleEndian.PutUint64(h[32:], lastSector)
	binary.LittleEndian.PutUint32(h[16:], headerCRC(h))
	t.growProtectiveMBR(lastSector)
	region := make([]byte, gptRegion)
	if _, err := disk.ReadAt(region, 0); err != nil {
		return fmt.Errorf("read primary GPT: %w", err)
	}
	copy(region, t.head)
	copy(region[gptFirstEntry*gptSector:], t.entries)
	if _, err := disk.WriteAt(region, 0); err != nil {
		return fmt.Errorf("write primary GPT: %w", err)
	}
	if err := disk.Sync(); err != nil {
		return fmt.Errorf("flush primary GPT: %w", err)
	}
	return nil
}

// growProtectiveMBR lets the one entry of type 0xEE span the disk, or as much
// of it as 32 bits can say.
func (t *gptTable) growProtectiveMBR(lastSector uint64) {
	entry := t.head[446:462]
	if entry[4] == 0xee {
		binary.LittleEndian.PutUint32(entry[12:], uint32(min(lastSector, 0xffffffff)))
	}
}

// headerCRC is the checksum of a header, computed with its own field zero.
func headerCRC(h []byte) uint32 {
	c := bytes.Clone(h[:gptHeaderSize])
	clear(c[16:20])
	return crc32.ChecksumIEEE(c)
}
