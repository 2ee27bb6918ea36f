package bucket

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/minio/minio-go/v7"

	"oscine.dev/oscine/internal/bounded"
	"oscine.dev/oscine/internal/serve/bundle"
)

const (
	// syncEvery is how many bytes are written before they are put on disk. Later ones may be
	// lost in a power failure, and another Fetch fetches them again.
	syncEvery = 16 << 20
	// maxWrite is more than is written at once.
	maxWrite = 1 << 20
)

// Fetch downloads a model's files into the empty folder out and returns the
// digest that they have when they are uploaded. What is not whole yet lies in the folder
// work, on the same file system, from where another Fetch of the same Version goes on.
// Progress is told how many bytes of the download are here; its error ends it. Files
// are readable by all and writable by nobody.
func (m *Model) Fetch(ctx context.Context, work, out string, progress func(int64) error) (digest string, err error) {
	before := int64(0)
	for i, o := range m.objects {
		if err := m.fetch(ctx, o, part(work, i), func(n int64) error { return progress(before + n) }); err != nil {
			return "", m.reach.explain(ctx, err)
		}
		before += o.size
	}
	if digest, err = m.digest(work); err != nil {
		return "", err
	}
	if want := m.Source.Digest; want != "" && digest != want {
		return "", fmt.Errorf("%w: %s has the digest %s now: serve it without the digest, or with that one", ErrDigest, m.Source, digest)
	}
	root, err := os.OpenRoot(out)
	if err != nil {
		return "", err
	}
	defer root.Close()
	for i, o := range m.objects {
		if err := bundle.Link(root, part(work, i), o.name); err != nil {
			return "", err
		}
	}
	return digest, nil
}

// part is the file that object number i is downloaded into.
func part(work string, i int) string { return filepath.Join(work, strconv.Itoa(i)) }

// digest is that of the model's files, as they are uploaded.
func (m *Model) digest(work string) (string, error) {
	sum := sha256.New()
	if !m.isFile() {
		files := make([]bundle.File, len(m.objects))
		for i, o := range m.objects {
			files[i] = bundle.File{Name: o.name, Path: part(work, i), Size: o.size}
		}
		if err := bundle.Write(sum, files); err != nil {
			return "", fmt.Errorf("%w: %s: %w", ErrModel, m.Source, err)
		}
	} else {
		f, err := os.Open(part(work, 0))
		if err != nil {
			return "", err
		}
		_, err = io.Copy(sum, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return "", err
		}
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}

// whole is the mode of a file that is on disk to its end.
const whole = 0o444

// fetch writes an object into a file, from where that ends.
func (m *Model) fetch(ctx context.Context, o item, file string, progress func(int64) error) error {
	if info, err := os.Stat(file); err == nil && info.Mode().Perm() == whole && info.Size() == o.size {
		return progress(o.size)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	w := &appender{f: f, progress: progress}
	if n := info.Size() - maxWrite; n > 0 && n < o.size {
		w.have = n / syncEvery * syncEvery // more was written after that was on disk
	}
	w.synced = w.have
	if err := f.Truncate(w.have); err != nil {
		return err
	}
	if _, err := f.Seek(w.have, io.SeekStart); err != nil {
		return err
	}
	if w.have < o.size {
		err := bounded.Retry(ctx, errdefs.IsUnavailable, func() (further bool, err error) {
			before := w.have
			err = m.part(ctx, o, w)
			return w.have > before, err
		})
		if err != nil {
			return err
		}
	}
	return errors.Join(f.Sync(), f.Chmod(whole))
}

// part fetches what is missing of an object over one connection.
func (m *Model) part(ctx context.Context, o item, w *appender) error {
	ctx, stall := bounded.NewStall(ctx, m.stall, fmt.Errorf("%w: %s sent nothing for %v", ErrUnreachable, m.reach.host, m.stall))
	defer stall.Stop()
	w.moved = stall.Moved
	r, err := m.open(ctx, o, w.have)
	if err == nil {
		_, err = io.Copy(w, io.LimitReader(r, o.size-w.have))
		err = errors.Join(err, r.Close())
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var failed *os.PathError
	switch {
	case w.failed != nil:
		return w.failed
	case err != nil && !errors.As(err, &failed):
		return m.reach.explain(ctx, cut(err, w.have, o))
	case err != nil:
		return err
	case w.have < o.size:
		return cut(io.ErrUnexpectedEOF, w.have, o)
	}
	return nil
}

// cut is the error of a connection that ended early.
func cut(err error, have int64, o item) error {
	if code(err) != "" || have == 0 && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return fmt.Errorf("%w: the connection was cut after %d of %d bytes of %s: %w", ErrUnreachable, have, o.size, o.key, err)
}

// open opens an object at an offset, if it is still the one that was found.
func (m *Model) open(ctx context.Context, o item, at int64) (io.ReadCloser, error) {
	var options minio.GetObjectOptions
	if err := errors.Join(options.SetMatchETag(o.etag), options.SetRange(at, o.size-1)); err != nil {
		return nil, err
	}
	core := minio.Core{Client: m.reach.client}
	r, info, _, err := core.GetObject(ctx, m.reach.source.Bucket, o.key, options)
	if err != nil {
		return nil, err
	}
	if info.Size != o.size-at || info.ETag != o.etag {
		return nil, errors.Join(fmt.Errorf("%w: of %s the server sends %d bytes from byte %d, it had %d in all: try again", ErrServer, o.key, info.Size, at, o.size), r.Close())
	}
	return r, nil
}

// appender appends to a file what comes of an object.
type appender struct {
	f            *os.File
	have, synced int64 // bytes
	progress     func(int64) error
	moved        func()
	failed       error // not the server's
}

func (w *appender) Write(p []byte) (int, error) {
	w.moved()
	n, err := w.f.Write(p)
	w.have += int64(n)
	if err == nil && w.have/syncEvery > w.synced/syncEvery {
		w.synced = w.have
		err = w.f.Sync()
	}
	if err == nil {
		err = w.progress(w.have)
	}
	w.failed = err
	return n, err
}
