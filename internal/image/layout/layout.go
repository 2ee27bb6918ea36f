package layout

import (
	"fmt"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"oscine.dev/oscine/internal/release"
)

// Sizes in bytes.
const (
	MiB        = int64(1) << 20
	SectorSize = 512
	ESPSize    = 160 * MiB // two unified kernel images of arm64 and a third while one is replaced
	MinData    = 64 * MiB  // of the data partition

	// MaxKernel is the most that one of these images may have: the FAT, the boot loader,
	// another one while that is tried, and what stays free take less than 4 MiB.
	MaxKernel = (ESPSize - 4*MiB) / 3
)

// Layout is where the partitions of a disk lie.
type Layout struct {
	Disk, Slot int64 // sizes in bytes
}

// Plan chooses the sizes for a root of that many bytes: slots with a third to
// spare for later versions. size is that of the disk, in bytes; least is what the
// data partition must have.
func Plan(size, root, least int64) (Layout, error) {
	l := Layout{Disk: size, Slot: max(192*MiB, AlignUp(root+root/3, 32*MiB))}
	if need := l.DataStart() + least + MiB; size < need {
		return l, fmt.Errorf("%d MiB are too small for this root: at least %d MiB are needed", size/MiB, AlignUp(need, MiB)/MiB)
	}
	l.Disk = size / MiB * MiB
	return l, nil
}

// DataStart is where the data partition begins, in bytes.
func (l Layout) DataStart() int64 { return MiB + ESPSize + 2*l.Slot }

// DataSize is its size in bytes.
func (l Layout) DataSize() int64 { return l.Disk - MiB - l.DataStart() }

// Partitions are the partitions, in the order on the disk.
func (l Layout) Partitions() []Partition {
	return []Partition{
		{release.PartitionESP, MiB, ESPSize},
		{release.PartitionRootA, MiB + ESPSize, l.Slot},
		{release.PartitionRootB, MiB + ESPSize + l.Slot, l.Slot},
		{release.PartitionData, l.DataStart(), l.DataSize()},
	}
}

// WriteTable writes both copies of the partition table to a disk of size bytes,
// and flushes them. id makes the identifiers of the disk, which is named "disk",
// and of each partition.
func (l Layout) WriteTable(disk backend.WritableFile, size int64, id func(name string) string) error {
	t := &gpt.Table{LogicalSectorSize: SectorSize, PhysicalSectorSize: SectorSize, ProtectiveMBR: true, GUID: id("disk")}
	for i, p := range l.Partitions() {
		kind := gpt.LinuxFilesystem
		if p.Name == release.PartitionESP {
			kind = gpt.EFISystemPartition
		}
		t.Partitions = append(t.Partitions, &gpt.Partition{
			Index: i + 1, Name: p.Name, Type: kind, GUID: id(p.Name),
			Start: uint64(p.Start / SectorSize), End: uint64((p.Start+p.Size)/SectorSize) - 1, Size: uint64(p.Size),
		})
	}
	if err := t.Write(disk, size); err != nil {
		return fmt.Errorf("write the partition table: %w", err)
	}
	return nil
}

// AlignUp is the least multiple of to that is not less than n.
func AlignUp(n, to int64) int64 { return (n + to - 1) / to * to }
