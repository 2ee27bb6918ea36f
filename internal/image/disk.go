package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/image/layout"
	"oscine.dev/oscine/internal/release"
)

// dataLabel is the label of an empty data partition's ext4.
const dataLabel = "oscine-data"

// derivedID makes identifiers that are equal for equal images.
func derivedID(v release.Verity, what string) string {
	sum := sha256.Sum256(append(v.RootHash[:], what...))
	id := uuid.UUID(sum[:16])
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80 // version 8, RFC 9562
	return strings.ToUpper(id.String())
}

// writeDisk writes the whole disk image into an empty file.
func writeDisk(ctx context.Context, disk *os.File, l layout.Layout, v release.Verity, root io.Reader, boot []layout.File) error {
	if err := disk.Truncate(l.Disk); err != nil {
		return err
	}
	if err := l.WriteTable(disk, l.Disk, func(name string) string { return derivedID(v, name) }); err != nil {
		return err
	}
	// Two builds of one commit are to give the same disk.
	if err := layout.WriteESP(disk, boot, time.Unix(Epoch, 0).UTC()); err != nil {
		return fmt.Errorf("write the ESP: %w", err)
	}
	if err := copySparse(disk, layout.MiB+layout.ESPSize, root); err != nil {
		return fmt.Errorf("write slot A: %w", err)
	}
	return ctx.Err()
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
func makeData(ctx context.Context, source *debian.Source, image string, l layout.Layout, v release.Verity) error {
	tool, err := source.Tool(ctx, "mke2fs")
	if err != nil {
		return err
	}
	return makeExt4(ctx, tool, image, l.DataStart(), l.DataSize(), release.ImageLabel, derivedID(v, "ext4"))
}

// makeExt4 makes the file system of a data partition inside a file. It can grow
// online to any disk.
func makeExt4(ctx context.Context, tool debian.Tool, file string, start, size int64, label, id string) error {
	id = strings.ToLower(id)
	cmd := tool.Command(ctx, "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "1", "-I", "256", "-L", label, "-U", id,
		"-O", ext4Features, "-E", fmt.Sprintf("quotatype=prjquota,offset=%d,nodiscard,lazy_itable_init=1,lazy_journal_init=1,hash_seed=%s,root_owner=0:0", start, id),
		file, fmt.Sprintf("%dk", size>>10))
	cmd.Env = append(cmd.Env, fmt.Sprintf("E2FSPROGS_FAKE_TIME=%d", Epoch), "MKE2FS_CONFIG=/dev/null")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make the data partition: mke2fs: %w: %s", err, tail(out, 500))
	}
	return nil
}

// addInstallation puts onto the root what oscine install makes a disk of, beside
// the root itself and its kernel image: the boot loader, and an empty data
// partition, which grows on its first boot.
func (b *builder) addInstallation(ctx context.Context, c *content) error {
	owners, err := c.debs(b.boot, b.Arch)
	if err != nil {
		return err
	}
	files, err := b.loaderFiles()
	if err != nil {
		return err
	}
	for _, f := range files {
		from := "oscine:oscine"
		if f.Path == layout.LoaderPath(b.Arch) {
			from = owners["systemd-boot-efi"]
		}
		c.text(strings.TrimPrefix(release.ESPOnRoot+f.Path, "/"), "file of the ESP, for oscine install", from, f.Data)
	}
	data, err := b.emptyData(ctx)
	if err != nil {
		return err
	}
	c.text(strings.TrimPrefix(release.EmptyData, "/"), "an empty data partition, for oscine install and oscine reset", "oscine:oscine", data)
	return nil
}

// emptyData is release.EmptyData.
func (b *builder) emptyData(ctx context.Context) ([]byte, error) {
	// The same commit gives the same root, whatever the host has.
	tool, err := b.source.Bundled(ctx, "mke2fs")
	if err != nil {
		return nil, err
	}
	f, err := os.Create(filepath.Join(b.work, "data"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(release.EmptyDataSize); err != nil {
		return nil, err
	}
	if err := makeExt4(ctx, tool, f.Name(), 0, release.EmptyDataSize, dataLabel, derivedID(release.Verity{}, "ext4")); err != nil {
		return nil, err
	}
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(z, contextReader{ctx, f})
	if err = errors.Join(err, z.Close()); err != nil {
		return nil, err
	}
	return packed.Bytes(), nil
}
