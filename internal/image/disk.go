package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/google/uuid"
	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/release"
)

// DataLabel is the label of the data partition's ext4.
const DataLabel = "oscine-data"

const (
	mib        = int64(1) << 20
	sectorSize = 512
	espSize    = 160 * mib // two unified kernel images of arm64 and a third while one is replaced
	minData    = 64 * mib
)

// layout is where the partitions lie.
type layout struct {
	disk, slot int64 // sizes in bytes
}

// planDisk chooses the sizes for a root of that many bytes: slots with a third
// to spare for later versions.
func planDisk(size, root int64) (layout, error) {
	l := layout{disk: size, slot: max(192*mib, alignUp(root+root/3, 32*mib))}
	if need := l.dataStart() + minData + mib; size < need {
		return l, fmt.Errorf("--size %d MiB is too small for this root: use at least %d MiB", size/mib, alignUp(need, mib)/mib)
	}
	l.disk = size / mib * mib
	return l, nil
}

func (l layout) dataStart() int64 { return mib + espSize + 2*l.slot }
func (l layout) dataSize() int64  { return l.disk - mib - l.dataStart() }

// derivedID makes identifiers that are equal for equal images.
func derivedID(v release.Verity, what string) string {
	sum := sha256.Sum256(append(v.RootHash[:], what...))
	id := uuid.UUID(sum[:16])
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80 // version 8, RFC 9562
	return strings.ToUpper(id.String())
}

func (l layout) table(v release.Verity) *gpt.Table {
	part := func(index int, name string, kind gpt.Type, start, size int64) *gpt.Partition {
		return &gpt.Partition{
			Index: index, Name: name, Type: kind, GUID: derivedID(v, name),
			Start: uint64(start / sectorSize), End: uint64((start+size)/sectorSize) - 1, Size: uint64(size),
		}
	}
	return &gpt.Table{
		LogicalSectorSize: sectorSize, PhysicalSectorSize: sectorSize, ProtectiveMBR: true, GUID: derivedID(v, "disk"),
		Partitions: []*gpt.Partition{
			part(1, release.PartitionESP, gpt.EFISystemPartition, mib, espSize),
			part(2, release.PartitionRootA, gpt.LinuxFilesystem, mib+espSize, l.slot),
			part(3, release.PartitionRootB, gpt.LinuxFilesystem, mib+espSize+l.slot, l.slot),
			part(4, release.PartitionData, gpt.LinuxFilesystem, l.dataStart(), l.dataSize()),
		},
	}
}

// bootFile is one file of the ESP.
type bootFile struct {
	path string // with slashes, from the ESP's root
	data []byte
}

// writeDisk writes the whole disk image into an empty file.
func writeDisk(ctx context.Context, disk *os.File, l layout, v release.Verity, root io.Reader, boot []bootFile) error {
	if err := disk.Truncate(l.disk); err != nil {
		return err
	}
	store := file.New(disk, false)
	writable, err := store.Writable()
	if err != nil {
		return err
	}
	if err := l.table(v).Write(writable, l.disk); err != nil {
		return fmt.Errorf("write the partition table: %w", err)
	}
	if err := writeESP(store, boot); err != nil {
		return fmt.Errorf("write the ESP: %w", err)
	}
	if err := copySparse(disk, mib+espSize, root); err != nil {
		return fmt.Errorf("write slot A: %w", err)
	}
	return ctx.Err()
}

func writeESP(store backend.Storage, boot []bootFile) error {
	esp, err := fat32.Create(store, espSize, mib, sectorSize, "OSCINE-ESP", true)
	if err != nil {
		return err
	}
	made, order := map[string]bool{"/": true}, []string(nil)
	for _, f := range boot {
		for _, dir := range parents(path.Dir(f.path)) {
			if !made[dir] {
				if err := esp.Mkdir(dir); err != nil {
					return fmt.Errorf("%s: %w", dir, err)
				}
				made[dir] = true
				order = append(order, dir)
			}
		}
		w, err := esp.OpenFile(f.path, os.O_CREATE|os.O_RDWR)
		if err != nil {
			return fmt.Errorf("%s: %w", f.path, err)
		}
		_, err = io.Copy(w, bytes.NewReader(f.data))
		if err = errors.Join(err, w.Close()); err != nil {
			return fmt.Errorf("%s: %w", f.path, err)
		}
		order = append(order, f.path)
	}
	// Two builds of one commit are to give the same disk.
	at := time.Unix(Epoch, 0).UTC()
	for _, name := range order {
		if err := esp.Chtimes(name, at, at, at); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return fixTimes(store, at)
}

// parents lists a folder's ancestors and itself, outermost first.
func parents(dir string) []string {
	if dir == "/" || dir == "." {
		return nil
	}
	return append(parents(path.Dir(dir)), dir)
}

// copySparse writes r at an offset and leaves out what is zero.
func copySparse(disk io.WriterAt, at int64, r io.Reader) error {
	block, zero := make([]byte, 256<<10), make([]byte, 256<<10)
	for {
		n, err := io.ReadFull(r, block)
		if n > 0 && !bytes.Equal(block[:n], zero[:n]) {
			if _, err := disk.WriteAt(block[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// ext4Features are spelled out because no mke2fs.conf of the host may count:
// without one, mke2fs leaves out even the journal.
const ext4Features = "has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize,resize_inode,quota,project,^orphan_file"

// makeData makes the data partition's file system straight inside the image.
// It can grow online to any disk.
func makeData(ctx context.Context, source *debian.Source, image string, l layout, v release.Verity) error {
	tool, err := source.Tool(ctx, "mke2fs")
	if err != nil {
		return err
	}
	id := strings.ToLower(derivedID(v, "ext4"))
	cmd := tool.Command(ctx, "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "1", "-I", "256", "-L", DataLabel, "-U", id,
		"-O", ext4Features, "-E", fmt.Sprintf("quotatype=prjquota,offset=%d,nodiscard,lazy_itable_init=1,lazy_journal_init=1,hash_seed=%s,root_owner=0:0", l.dataStart(), id),
		image, fmt.Sprintf("%dk", l.dataSize()>>10))
	cmd.Env = append(cmd.Env, fmt.Sprintf("E2FSPROGS_FAKE_TIME=%d", Epoch), "MKE2FS_CONFIG=/dev/null")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make the data partition: mke2fs: %w: %s", err, tail(out, 500))
	}
	return nil
}

func alignUp(n, to int64) int64 { return (n + to - 1) / to * to }
