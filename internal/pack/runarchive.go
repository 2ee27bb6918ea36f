package pack

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/licence"
)

// Bounds of an archive of NVIDIA's.
const (
	maxRunHeader = 16 << 20 // bytes before the compressed archive: a script, and a program that unpacks
	maxRunFiles  = 20_000
	maxRunBytes  = 8 << 30 // unpacked
)

var runName = regexp.MustCompile(`^NVIDIA-Linux-(x86_64|aarch64)-(\d+(?:\.\d+){1,3})(?:-[a-z0-9-]+)?\.run$`)

// archivedDriver is the driver of an archive that NVIDIA gives out: a script that ends
// in a compressed tar archive. The script is not run.
func (b *builder) archivedDriver(ctx context.Context) (*nvidiaParts, error) {
	m := runName.FindStringSubmatch(filepath.Base(b.Archive))
	if m == nil {
		return nil, fmt.Errorf("%s is not named as NVIDIA names its archives: NVIDIA-Linux-x86_64-VERSION.run or NVIDIA-Linux-aarch64-VERSION.run", b.Archive)
	}
	if arch := map[string]string{"x86_64": "amd64", "aarch64": "arm64"}[m[1]]; arch != b.Arch {
		return nil, fmt.Errorf("%s is for %s, and the pack for %s: give --arch %s", b.Archive, m[1], b.Arch, arch)
	}
	digest, err := fileDigest(b.Archive)
	if err != nil {
		return nil, fmt.Errorf("read NVIDIA's archive: %w", err)
	}
	cache, err := debian.CacheDir()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, "nvidia", strings.TrimPrefix(digest, "sha256:")[:16])
	if _, err := os.Stat(dir); err != nil {
		fmt.Fprintf(b.Log, "unpack %s\n", filepath.Base(b.Archive))
		err := durable.MakeTree(dir, func(empty string) error { return unpackRun(ctx, b.Archive, empty) })
		if err != nil {
			return nil, fmt.Errorf("unpack NVIDIA's archive %s: %w", b.Archive, err)
		}
	}
	p := &nvidiaParts{version: m[2], id: digest, modules: filepath.Join(dir, "kernel-open"), firmware: filepath.Join(dir, "firmware"), tree: dir, licence: filepath.Join(dir, "LICENSE")}
	if _, err := os.Stat(filepath.Join(p.modules, "Makefile")); err != nil {
		return nil, fmt.Errorf("NVIDIA's archive %s has no open kernel modules (kernel-open): take one of the branch 515 or newer", b.Archive)
	}
	p.record = func() error {
		text, err := os.ReadFile(p.licence)
		if err != nil {
			return fmt.Errorf("the licence of NVIDIA's archive: %w", err)
		}
		b.input(filepath.Base(b.Archive), p.version, digest)
		if err := b.licence("NVIDIA's kernel modules", licence.Licence{Expression: "MIT OR GPL-2.0-only"}, "", ""); err != nil {
			return err
		}
		return b.licence("NVIDIA's driver", licence.Licence{Expression: "LicenseRef-NVIDIA-driver"}, "nvidia-driver", string(text))
	}
	return p, nil
}

// unpackRun unpacks an archive that a script carries (makeself) into a folder: the
// first compressed stream in it that is a tar archive. The folder above all files is
// left out.
func unpackRun(ctx context.Context, file, dir string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, maxRunHeader)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if head = head[:n]; !bytes.HasPrefix(head, []byte("#!")) {
		return errors.New("it does not begin as a script")
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	for at := 0; at < len(head); at++ {
		open := compressed(head[at:])
		if open == nil {
			continue
		}
		begins := func() (io.ReadCloser, error) {
			return open(bufio.NewReaderSize(io.NewSectionReader(f, int64(at), info.Size()-int64(at)), 1<<20))
		}
		if !isTar(begins) {
			continue
		}
		r, err := begins()
		if err != nil {
			return err
		}
		defer r.Close()
		return untarRun(ctx, r, dir)
	}
	return fmt.Errorf("its first %d MiB hold no compressed tar archive (zstd, xz or gzip)", maxRunHeader>>20)
}

// compressed returns what opens the compressed stream that b begins with, nil for none.
func compressed(b []byte) func(io.Reader) (io.ReadCloser, error) {
	switch {
	case bytes.HasPrefix(b, []byte("\x28\xb5\x2f\xfd")):
		return func(r io.Reader) (io.ReadCloser, error) {
			z, err := zstd.NewReader(r)
			if err != nil {
				return nil, err
			}
			return z.IOReadCloser(), nil
		}
	case bytes.HasPrefix(b, []byte("\xfd7zXZ\x00")):
		return func(r io.Reader) (io.ReadCloser, error) {
			z, err := xz.NewReader(r)
			return io.NopCloser(z), err
		}
	case bytes.HasPrefix(b, []byte("\x1f\x8b\x08")):
		return func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }
	}
	return nil
}

// isTar reports whether a stream begins as a tar archive (POSIX ustar).
func isTar(open func() (io.ReadCloser, error)) bool {
	r, err := open()
	if err != nil {
		return false
	}
	defer r.Close()
	block := make([]byte, 512)
	_, err = io.ReadFull(r, block)
	return err == nil && bytes.HasPrefix(block[257:], []byte("ustar"))
}

// untarRun writes the files of a tar archive below dir, without the first folder of
// their names. Links stay inside, and nothing else than files, folders and links is
// made.
func untarRun(ctx context.Context, r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	t := tar.NewReader(io.LimitReader(r, maxRunBytes))
	for range maxRunFiles {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		name := strings.TrimPrefix(h.Name, "./")
		if first, rest, ok := strings.Cut(name, "/"); ok && strings.HasPrefix(first, "NVIDIA-Linux-") {
			name = rest
		}
		name = filepath.Clean(name)
		if name == "." || h.Typeflag == tar.TypeDir {
			continue
		}
		if !filepath.IsLocal(name) {
			return fmt.Errorf("the name %q leads out of it", h.Name)
		}
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeReg:
			err = writeRun(root, name, t, h.FileInfo().Mode().Perm()|0o600)
		case tar.TypeSymlink:
			err = root.Symlink(h.Linkname, name)
		default:
			err = fmt.Errorf("%q is neither a file nor a folder", h.Name)
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("it holds more than %d files", maxRunFiles)
}

func writeRun(root *os.Root, name string, from io.Reader, mode os.FileMode) error {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}
