package layout

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/diskfs/go-diskfs/partition/gpt"
)

// Partition is where one partition of a disk lies.
type Partition struct {
	Name        string
	Start, Size int64 // bytes
}

// maxGPTEntries bounds the entries of a partition table.
const maxGPTEntries = 1024

// ReadTable reads the partition table of a disk. One whose primary table is
// damaged is refused, although the backup may be whole: it is no disk as we
// write it.
func ReadTable(disk *os.File, size int64) (map[string]Partition, error) {
	if err := checkGPTBounds(disk, size); err != nil {
		return nil, err
	}
	table, err := gpt.Read(disk, SectorSize, SectorSize)
	if err != nil {
		return nil, fmt.Errorf("its partition table is damaged: %w", err)
	}
	if table.RecoveredFromBackup {
		return nil, errors.New("its partition table is damaged: a checksum is wrong")
	}
	parts := map[string]Partition{}
	for _, p := range table.Partitions {
		if p.Start > p.End || p.End >= uint64(size/SectorSize) {
			return nil, fmt.Errorf("partition %q reaches beyond the end of the file: it was cut off, copy it again", p.Name)
		}
		parts[p.Name] = Partition{Name: p.Name, Start: int64(p.Start) * SectorSize, Size: int64(p.End-p.Start+1) * SectorSize}
	}
	return parts, nil
}

// checkGPTBounds looks at what the library takes on trust: how many entries each
// of the two headers announces, how long they are and where they begin.
//
// Source: UEFI specification, section 5.3.2.
func checkGPTBounds(disk *os.File, size int64) error {
	header := make([]byte, SectorSize)
	for i, at := range []int64{SectorSize, (size/SectorSize - 1) * SectorSize} {
		if at < SectorSize {
			return errors.New("it has no partition table")
		}
		if _, err := disk.ReadAt(header, at); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read its partition table: %w", err)
		}
		if string(header[:8]) != "EFI PART" {
			if i == 0 {
				return errors.New("it has no partition table")
			}
			continue // the partitions of a disk whose end was cut off report that
		}
		start, count := binary.LittleEndian.Uint64(header[72:]), binary.LittleEndian.Uint32(header[80:])
		if start > uint64(size/SectorSize) || count > maxGPTEntries || binary.LittleEndian.Uint32(header[84:]) != gpt.PartitionEntrySize {
			return errors.New("its partition table is damaged: it is out of bounds")
		}
	}
	return nil
}
