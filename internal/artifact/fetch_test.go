package artifact

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
)

// slowTarget sends blobs from their beginning, a byte every 10 ms.
type slowTarget struct {
	oras.ReadOnlyTarget
	blob []byte
}

func (s slowTarget) Fetch(ctx context.Context, _ ocispec.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(slowReader{ctx, iotest.OneByteReader(bytes.NewReader(s.blob))}), nil
}

type slowReader struct {
	ctx context.Context
	r   io.Reader
}

func (s slowReader) Read(p []byte) (int, error) {
	select {
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	case <-time.After(10 * time.Millisecond):
		return s.r.Read(p)
	}
}

// A registry that sends a blob from its beginning, although only its end is missing,
// may take longer for that than it may be silent.
func TestSlowRegistryWithoutRanges(t *testing.T) {
	blob := bytes.Repeat([]byte("x"), 100)
	s := &Store{from: slowTarget{blob: blob}, stall: 500 * time.Millisecond}
	d := ocispec.Descriptor{Digest: digest.FromBytes(blob), Size: int64(len(blob))}
	b, err := s.Blob(t.Context(), d, 90)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, blob[90:]) {
		t.Errorf("got %q, %v", got, err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "blob"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(blob[:90]); err != nil {
		t.Fatal(err)
	}
	if err := s.part(t.Context(), d, &blobWriter{f: f, have: 90, verifier: d.Digest.Verifier()}); err != nil {
		t.Error(err)
	}
}
