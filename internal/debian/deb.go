package debian

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Bounds on what one package may unpack to.
const (
	maxUnpacked = 8 << 30 // bytes
	maxEntries  = 200_000
)

// Unpack writes the files of a .deb (deb(5): an ar archive holding
// data.tar.{gz,xz,zst}) below dir, which must exist. Entries that keep refuses
// are skipped; nil keeps all. Owners are not kept, holes are, and no entry can
// leave dir.
func Unpack(ctx context.Context, deb, dir string, keep func(name string) bool) error {
	f, err := os.Open(deb)
	if err != nil {
		return err
	}
	defer f.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	member, data, err := dataMember(bufio.NewReaderSize(f, 1<<20))
	if err != nil {
		return fmt.Errorf("unpack %s: %w", deb, err)
	}
	plain, wait, err := decompress(ctx, member, data)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", deb, err)
	}
	err = untar(ctx, plain, root, keep)
	if err = errors.Join(err, wait()); err != nil {
		return fmt.Errorf("unpack %s: %w", deb, err)
	}
	return nil
}

// dataMember finds data.tar.* in an ar archive and returns its name and
// content.
func dataMember(r io.Reader) (string, io.Reader, error) {
	magic := make([]byte, 8)
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != "!<arch>\n" {
		return "", nil, errors.New("not a Debian package: it does not begin as an ar archive")
	}
	for range 16 {
		head := make([]byte, 60)
		if _, err := io.ReadFull(r, head); err != nil {
			return "", nil, errors.New("not a Debian package: it holds no data.tar")
		}
		if string(head[58:]) != "`\n" {
			return "", nil, errors.New("not a Debian package: broken ar header")
		}
		name := strings.TrimRight(strings.TrimSpace(string(head[:16])), "/")
		size, err := strconv.ParseInt(strings.TrimSpace(string(head[48:58])), 10, 64)
		if err != nil || size < 0 || size > maxPackage {
			return "", nil, fmt.Errorf("not a Debian package: member %q has a bad size", name)
		}
		if strings.HasPrefix(name, "data.tar") {
			return name, io.LimitReader(r, size), nil
		}
		if _, err := io.CopyN(io.Discard, r, size+size%2); err != nil {
			return "", nil, fmt.Errorf("member %q is cut off", name)
		}
	}
	return "", nil, errors.New("not a Debian package: no data.tar among its first members")
}

// decompress undoes the compression that the member's name tells. The xz
// program is several times faster than the Go decoder, so it is used where it
// exists.
func decompress(ctx context.Context, name string, r io.Reader) (io.Reader, func() error, error) {
	done := func() error { return nil }
	switch path.Ext(name) {
	case ".tar":
		return r, done, nil
	case ".gz":
		z, err := gzip.NewReader(r)
		return z, done, err
	case ".zst":
		z, err := zstd.NewReader(r)
		if err != nil {
			return nil, nil, err
		}
		return z, func() error { z.Close(); return nil }, nil
	case ".xz":
		bin, err := exec.LookPath("xz")
		if err != nil {
			z, err := xz.NewReader(r)
			return z, done, err
		}
		cmd := exec.CommandContext(ctx, bin, "-dc", "-T0")
		cmd.Stdin = r
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, nil, err
		}
		wait := func() error {
			_, _ = io.Copy(io.Discard, out)
			return cmd.Wait()
		}
		return out, wait, nil
	}
	return nil, nil, fmt.Errorf("the compression of %s is not known", name)
}

func untar(ctx context.Context, r io.Reader, root *os.Root, keep func(string) bool) error {
	t := tar.NewReader(io.LimitReader(r, maxUnpacked))
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return ctx.Err()
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil && n > maxEntries {
			err = fmt.Errorf("it has more than %d entries", maxEntries)
		}
		if err != nil {
			return err
		}
		name := path.Clean(strings.TrimPrefix(h.Name, "./"))
		if name == "." || keep != nil && !keep(name) {
			continue
		}
		if err := entry(root, name, h, t); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

func entry(root *os.Root, name string, h *tar.Header, r io.Reader) error {
	if dir := path.Dir(name); dir != "." && h.Typeflag != tar.TypeDir {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, 0o755)
	case tar.TypeSymlink:
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return root.Link(path.Clean(strings.TrimPrefix(h.Linkname, "./")), name)
	case tar.TypeReg:
		// Owners are not kept, so neither may be set-user-ID.
		return regular(root, name, fs.FileMode(h.Mode)&0o755|0o600, r)
	}
	return fmt.Errorf("entry type %q is not one that a package needs", h.Typeflag)
}

// regular writes a file and leaves holes where it is zero: the arm64 firmware
// alone is 390 MB of mostly nothing.
func regular(root *os.Root, name string, mode fs.FileMode, r io.Reader) error {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	var size int64
	block, zero := make([]byte, 64<<10), make([]byte, 64<<10)
	for err == nil {
		var n int
		n, err = io.ReadFull(r, block)
		if n > 0 && !bytes.Equal(block[:n], zero[:n]) {
			if _, werr := f.WriteAt(block[:n], size); werr != nil {
				return errors.Join(werr, f.Close())
			}
		}
		size += int64(n)
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Truncate(size), f.Close())
}
