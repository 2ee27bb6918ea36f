package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"oscine.dev/oscine/internal/bounded"
)

// stallTime is how long a download may bring nothing before it is taken for cut.
const stallTime = time.Minute

// Fetch writes a blob into a file, from where the file ends: what is there already is
// not fetched again. It returns when the whole has its digest. A connection that is cut is made
// again a few times; then the error is ErrUnreachable and the file keeps what came.
// If it keeps something else, it is empty. Progress is told how many bytes are there;
// its error ends the download.
func (s *Store) Fetch(ctx context.Context, d ocispec.Descriptor, f *os.File, progress func(int64) error) error {
	if err := check(d); err != nil {
		return fmt.Errorf("%w: %s: %v", ErrManifest, s.ref, err)
	}
	w, err := begin(d, f, progress)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", d.Digest, err)
	}
	if w.have < d.Size {
		err := bounded.Retry(ctx, errdefs.IsUnavailable, func() (further bool, err error) {
			before := w.have
			err = s.part(ctx, d, w)
			return w.have > before, err
		})
		if err != nil {
			return err
		}
	}
	if !w.verifier.Verified() {
		what := "the registry sent something else: try again, and push it again where that does not help"
		if s.ref.Local() {
			what = "the layout is damaged: push it again"
		}
		return errors.Join(fmt.Errorf("%w: %s of %s: %s", ErrDigest, d.Digest, s.ref, what), f.Truncate(0))
	}
	return nil
}

// blobWriter appends to a file what comes of a blob.
type blobWriter struct {
	f        *os.File
	have     int64
	verifier interface {
		io.Writer
		Verified() bool
	}
	progress func(int64) error
}

// begin takes up a file with the beginning of a blob.
func begin(d ocispec.Descriptor, f *os.File, progress func(int64) error) (*blobWriter, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	w := &blobWriter{f: f, have: info.Size(), verifier: d.Digest.Verifier(), progress: progress}
	if w.have > d.Size {
		w.have = 0
		if err := f.Truncate(0); err != nil {
			return nil, err
		}
	}
	if _, err := io.Copy(w.verifier, io.NewSectionReader(f, 0, w.have)); err != nil {
		return nil, err
	}
	_, err = f.Seek(w.have, io.SeekStart)
	return w, err
}

func (w *blobWriter) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.have += int64(n)
	if _, e := w.verifier.Write(p[:n]); e != nil {
		err = errors.Join(err, e)
	}
	if err == nil && w.progress != nil {
		err = w.progress(w.have)
	}
	return n, err
}

// part fetches what is missing over one connection.
func (s *Store) part(ctx context.Context, d ocispec.Descriptor, w *blobWriter) error {
	r, err := s.Blob(ctx, d, w.have)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.Copy(w, io.LimitReader(r, d.Size-w.have)); err != nil {
		return s.explain(err)
	}
	if w.have < d.Size {
		return fmt.Errorf("%w: %d of %d bytes of %s came", ErrUnreachable, w.have, d.Size, d.Digest)
	}
	return nil
}

// Blob opens a blob for reading from an offset. The caller checks its digest. Reading
// fails with ErrUnreachable where nothing comes for a minute.
func (s *Store) Blob(ctx context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	ctx, stall := bounded.NewStall(ctx, s.stall, fmt.Errorf("%w: %s sent nothing for %v", ErrUnreachable, s.ref.Host(), s.stall))
	b := &blob{ctx: ctx, stall: stall, at: offset, size: d.Size}
	r, err := s.from.Fetch(ctx, d)
	if err == nil {
		b.closer = r
		if err = skip(r, offset, stall.Moved); err != nil {
			r.Close()
			err = fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
	}
	if err != nil {
		err = s.explain(stalled(ctx, err))
		stall.Stop()
		return nil, err
	}
	b.tracked = tracked{r: r, moved: stall.Moved}
	return b, nil
}

// blob is a blob that is being read.
type blob struct {
	tracked
	ctx      context.Context
	stall    *bounded.Stall
	closer   io.Closer
	at, size int64 // bytes
}

func (b *blob) Read(p []byte) (int, error) {
	n, err := b.tracked.Read(p)
	b.at += int64(n)
	if b.failed {
		err = stalled(b.ctx, fmt.Errorf("%w: the connection was cut after %d of %d bytes: %w", ErrUnreachable, b.at, b.size, err))
	}
	return n, err
}

func (b *blob) Close() error {
	err := b.closer.Close()
	b.stall.Stop()
	return err
}

// stalled returns why a context was cancelled, if it was, and else err.
func stalled(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// skip leaves out what is there already. Where the registry sends that too, moved is
// told.
func skip(r io.Reader, n int64, moved func()) error {
	if n == 0 {
		return nil
	}
	if seeker, ok := r.(io.Seeker); ok {
		if _, err := seeker.Seek(n, io.SeekStart); err == nil {
			return nil
		}
	}
	_, err := io.CopyN(io.Discard, &tracked{r: r, moved: moved}, n)
	return err
}

// tracked tells when something comes, and whether reading failed.
type tracked struct {
	r      io.Reader
	moved  func()
	failed bool
}

func (t *tracked) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if n > 0 {
		t.moved()
	}
	t.failed = err != nil && !errors.Is(err, io.EOF)
	return n, err
}
