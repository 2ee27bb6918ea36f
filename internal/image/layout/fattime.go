package layout

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/diskfs/go-diskfs/backend"
)

// fixTimes sets the times of the ESP's label and of the entries "." and "..",
// which the FAT writer takes from the clock and offers no call to change.
func fixTimes(store backend.Storage, at time.Time) error {
	disk, err := store.Writable()
	if err != nil {
		return err
	}
	boot := make([]byte, SectorSize)
	if _, err := disk.ReadAt(boot, MiB); err != nil {
		return err
	}
	u16 := func(at int) int64 { return int64(binary.LittleEndian.Uint16(boot[at:])) }
	// BIOS parameter block (Microsoft FAT specification, §3.1 and §3.3).
	cluster := int64(boot[13]) * SectorSize
	data := MiB + (u16(14)+int64(boot[16])*int64(binary.LittleEndian.Uint32(boot[36:])))*SectorSize
	entries := make([]byte, 64)
	for offset := data; offset+cluster <= MiB+ESPSize; offset += cluster {
		if _, err := disk.ReadAt(entries, offset); err != nil {
			return err
		}
		label := offset == data && entries[11] == 0x08
		folder := bytes.HasPrefix(entries, []byte(".          \x10")) && bytes.HasPrefix(entries[32:], []byte("..         \x10"))
		if !label && !folder {
			continue
		}
		stamp(entries[:32], at)
		if folder {
			stamp(entries[32:], at)
		}
		if _, err := disk.WriteAt(entries, offset); err != nil {
			return err
		}
	}
	return nil
}

// stamp sets the three times of a directory entry (§6).
func stamp(entry []byte, at time.Time) {
	date := uint16(at.Year()-1980)<<9 | uint16(at.Month())<<5 | uint16(at.Day())
	clock := uint16(at.Hour())<<11 | uint16(at.Minute())<<5 | uint16(at.Second()/2)
	entry[13] = 0 // tenths of a second of the creation
	for field, value := range map[int]uint16{14: clock, 16: date, 18: date, 22: clock, 24: date} {
		binary.LittleEndian.PutUint16(entry[field:], value)
	}
}
