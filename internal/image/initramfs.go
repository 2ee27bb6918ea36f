package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"
	"oscine.dev/oscine/internal/bounded"
	"oscine.dev/oscine/internal/image/cpio"
	"oscine.dev/oscine/internal/release"
)

// buildInitramfs packs stage 1: init, the modules that it loads and their list.
func buildInitramfs(ctx context.Context, k *kernel, initFile string) ([]byte, error) {
	program, err := os.ReadFile(initFile)
	if err != nil {
		return nil, err
	}
	c := newContent()
	c.text(strings.TrimPrefix(release.ModulesFile, "/"), "", "", loadList(k.early))
	base := "usr/lib/modules/" + k.version + "/"
	c.text(base+"modules.dep", "", "", k.modules.depFile(k.initrd))
	c.text(base+"modules.alias", "", "", aliasFile(k.initrd))
	for _, m := range k.initrd {
		data, err := readModule(ctx, k.dir+"/"+m.Path)
		if err != nil {
			return nil, err
		}
		c.text(pathOf(k.version, m), "", "", data)
	}
	for _, dir := range []string{"dev", "proc", "sys", "run"} {
		c.dir(dir, "", 0o755)
	}
	c.put(File{Path: "init", Mode: 0o755, data: program})
	var archive bytes.Buffer
	w := cpio.NewWriter(&archive, Epoch)
	for _, f := range c.list() {
		w.Add(f.Path, f.Mode, f.data)
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return archive.Bytes(), nil
}

// packInitramfs returns an initramfs as the kernel image holds it: plain, as unpacking it
// was a twentieth of the instructions of a boot. The kernels of arm64 for real machines are
// 39 MB by themselves, and need so many modules that the ESP has room for three of them
// only if these are compressed.
func packInitramfs(archive []byte, arch, flavour string) ([]byte, error) {
	if arch != "arm64" || flavour == FlavourCloud {
		return archive, nil
	}
	// The same bytes on any machine, and a window that the kernel's decompressor takes.
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(8<<20), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, err
	}
	return z.EncodeAll(archive, nil), z.Close()
}

// compressFile writes a file as one zstd frame and returns its size in bytes.
func compressFile(ctx context.Context, from, to string) (int64, error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return 0, err
	}
	z, err := zstd.NewWriter(out, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(8<<20))
	if err != nil {
		return 0, errors.Join(err, out.Close())
	}
	_, err = io.Copy(z, contextReader{ctx, in})
	if err = errors.Join(err, z.Close()); err != nil {
		return 0, errors.Join(err, out.Close())
	}
	size, err := out.Seek(0, io.SeekCurrent)
	return size, errors.Join(err, out.Close())
}

// contextReader ends a copy when its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// maxInitramfs bounds an unpacked initramfs in bytes.
const maxInitramfs = 512 << 20

// ReadInitramfs lists the files of a zstd-compressed or plain initramfs.
func ReadInitramfs(data []byte) ([]cpio.Entry, error) {
	if bytes.HasPrefix(data, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		z, err := zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderMaxMemory(maxInitramfs))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		plain, err := bounded.ReadAll(z, maxInitramfs)
		if err != nil {
			return nil, fmt.Errorf("unpack the initramfs: %w", err)
		}
		data = plain
	}
	return cpio.Read(data)
}
