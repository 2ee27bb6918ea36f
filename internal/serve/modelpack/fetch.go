package modelpack

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/serve/bundle"
)

const (
	// maxRatio is how many times larger an archive may become; weights hardly shrink.
	maxRatio = 100
	// maxWindow bounds the memory that a zstd archive asks for.
	maxWindow = 128 << 20
)

// Fetch downloads a model's files into the empty folder out. What is not whole yet lies
// in the folder work, on the same file system, from where another Fetch goes on.
// Progress is told how many bytes of the download are here; its error ends it. Files
// are readable by all and writable by nobody.
func (m *Model) Fetch(ctx context.Context, store *artifact.Store, work, out string, progress func(int64) error) error {
	before := int64(0)
	for _, p := range m.parts {
		file := filepath.Join(work, p.Digest.Encoded())
		if err := fetchPart(ctx, store, p, file, func(n int64) error { return progress(before + n) }); err != nil {
			return err
		}
		before += p.Size
	}
	root, err := os.OpenRoot(out)
	if err != nil {
		return err
	}
	defer root.Close()
	left := int64(bundle.MaxFiles)
	for _, p := range m.parts {
		file := filepath.Join(work, p.Digest.Encoded())
		if err := m.place(ctx, root, p, file, &left, func() error { return progress(before) }); err != nil {
			return err
		}
	}
	return nil
}

func fetchPart(ctx context.Context, store *artifact.Store, p part, file string, progress func(int64) error) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(store.Fetch(ctx, p.Descriptor, f, progress), f.Sync(), f.Close())
}

// place puts the files of a part where they belong. It looks into progress now and then.
func (m *Model) place(ctx context.Context, root *os.Root, p part, file string, left *int64, progress func() error) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	var r io.Reader = in
	switch p.pack {
	case raw:
		*left--
		return link(root, file, p.name)
	case gzipped:
		z, err := gzip.NewReader(in)
		if err != nil {
			return fmt.Errorf("%w: the layer %s: %w", artifact.ErrManifest, p.Digest, err)
		}
		r = z
	case zstded:
		z, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return err
		}
		defer z.Close()
		r = z
	}
	// The bound is on all that is unpacked, headers too.
	bounded := &checked{ctx: ctx, r: r, progress: progress, most: min(MaxBytes, max(64<<20, maxRatio*p.Size)), named: p.Digest.String()}
	if err := untar(root, tar.NewReader(bounded), left); err != nil {
		return fmt.Errorf("the layer %s: %w", p.Digest, err)
	}
	return nil
}

// link gives a downloaded file its name in the model, of which it may have several.
func link(root *os.Root, file, name string) error {
	err := bundle.Link(root, file, name)
	if errors.Is(err, bundle.ErrName) {
		err = fmt.Errorf("%w: %w", artifact.ErrManifest, err)
	}
	return err
}

// untar takes the files of an archive, and nothing else.
func untar(root *os.Root, r *tar.Reader, left *int64) error {
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return archiveError(err)
		}
		name := strings.TrimPrefix(path.Clean(h.Name), "./")
		if h.Typeflag == tar.TypeDir {
			continue // made with the files in it
		}
		if h.Typeflag != tar.TypeReg {
			return fmt.Errorf("%w: %.100q is neither a file nor a folder", artifact.ErrManifest, h.Name)
		}
		if strings.Contains("/"+h.Name+"/", "/../") {
			name = h.Name // Extract says what is wrong with it
		}
		if *left--; *left < 0 {
			return fmt.Errorf("%w: it has more than %d files", artifact.ErrManifest, bundle.MaxFiles)
		}
		if err := bundle.Extract(root, name, r); err != nil {
			return archiveError(err)
		}
	}
}

// archiveError gives an error that an archive is to blame for its class.
func archiveError(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrHeader) || errors.Is(err, os.ErrExist) || errors.Is(err, gzip.ErrChecksum) {
		return fmt.Errorf("%w: %w", artifact.ErrManifest, err)
	}
	return err
}

// checked reads within bounds.
type checked struct {
	ctx      context.Context
	r        io.Reader
	progress func() error
	most     int64 // 0: any
	named    string
	n, asked int64
}

// askEvery is how many bytes are written before there has to be room again.
const askEvery = 16 << 20

func (c *checked) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	if c.n-c.asked >= askEvery {
		c.asked = c.n
		if err := c.progress(); err != nil {
			return 0, err
		}
	}
	n, err := c.r.Read(b)
	if c.n += int64(n); c.most > 0 && c.n > c.most {
		return 0, fmt.Errorf("%w: %s unpacks to more than %d bytes", artifact.ErrManifest, c.named, c.most)
	}
	return n, err
}
