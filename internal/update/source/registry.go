package source

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/update"
)

// registry is a release folder in a registry: an artifact with a layer for each file,
// whose title is the file's path. oscine release push makes it.
type registry struct {
	store *artifact.Store

	mu    sync.Mutex
	files map[string]ocispec.Descriptor // by path; nil before the manifest was read
}

func newRegistry(ctx context.Context, where string, o update.Options) (*registry, error) {
	r, err := artifact.Parse(where)
	if err != nil {
		return nil, err
	}
	store, err := artifact.Open(ctx, r, o.Registry)
	if err != nil {
		return nil, err
	}
	return &registry{store: store}, nil
}

func (r *registry) close() {}

// open implements location. The timestamp is the only file that changes: with it comes
// the artifact that the tag names now.
func (r *registry) open(ctx context.Context, path string, offset int64) (io.ReadCloser, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.files == nil || path == "metadata/timestamp.json" {
		if err := r.read(ctx); err != nil {
			return nil, unread(path, err)
		}
	}
	d, ok := r.files[path]
	if !ok {
		return nil, fmt.Errorf("%s: %s has no such file: %w", path, r.store.Reference(), fs.ErrNotExist)
	}
	if offset > d.Size {
		return nil, fmt.Errorf("%w: %s ends before byte %d", update.ErrDamaged, path, offset)
	}
	body, err := r.store.Blob(ctx, d, offset)
	if err != nil {
		return nil, unread(path, err)
	}
	return body, nil
}

// read reads the manifest of the artifact.
func (r *registry) read(ctx context.Context) error {
	m, err := r.store.Manifest(ctx, "")
	if err != nil {
		return err
	}
	files := map[string]ocispec.Descriptor{}
	for _, d := range m.Layers {
		files[d.Annotations[ocispec.AnnotationTitle]] = d
	}
	r.files = files
	return nil
}

// unread keeps apart what may work later.
func unread(path string, err error) error {
	if errdefs.IsUnavailable(err) {
		return fmt.Errorf("%w: %s: %w", update.ErrUnreachable, path, err)
	}
	return fmt.Errorf("%s: %w", path, err)
}
