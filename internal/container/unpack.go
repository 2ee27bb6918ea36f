package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxManifest bounds what is read into memory whole: manifests, indexes,
// configurations.
const maxManifest = 8 << 20

// smallManifests is a content store that does not give out manifests and
// configurations of absurd size: containerd reads these into memory.
type smallManifests struct{ content.Store }

// ReaderAt opens content.
func (s smallManifests) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	ra, err := s.Store.ReaderAt(ctx, desc)
	if err != nil {
		return nil, err
	}
	if size := ra.Size(); size > maxManifest && !images.IsLayerType(desc.MediaType) && desc.MediaType != "" {
		ra.Close()
		return nil, fmt.Errorf("%s %s has %d bytes: %w", desc.MediaType, desc.Digest, size, ErrTooLarge)
	}
	return ra, nil
}

// applier unpacks layers within a bound, while there is room. It decompresses on its own and gives
// containerd's applier a plain tar stream, cut where the budget ends.
type applier struct {
	store content.Provider
	bound int64
	room  *room
}

func newApplier(store content.Provider, bound int64, room *room) diff.Applier {
	return applier{store, bound, room}
}

// budgetKey is where a transfer's context keeps what its layers may still take
// together, as *atomic.Int64.
type budgetKey struct{}

// Apply unpacks one layer into mounts.
func (a applier) Apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, opts ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	budget, _ := ctx.Value(budgetKey{}).(*atomic.Int64)
	if budget == nil {
		budget = new(atomic.Int64)
		budget.Store(a.bound)
	}
	plain := desc
	plain.MediaType = ocispec.MediaTypeImageLayer
	return apply.NewFileSystemApplier(plainLayers{a.store, desc, budget, a.room}).Apply(ctx, plain, mounts, opts...)
}

// plainLayers provides the layer of desc decompressed.
type plainLayers struct {
	store  content.Provider
	desc   ocispec.Descriptor
	budget *atomic.Int64
	room   *room
}

// ReaderAt opens the layer.
func (p plainLayers) ReaderAt(ctx context.Context, _ ocispec.Descriptor) (content.ReaderAt, error) {
	packed, err := p.store.ReaderAt(ctx, p.desc)
	if err != nil {
		return nil, err
	}
	stream, err := compression.DecompressStream(content.NewReader(packed))
	if err != nil {
		packed.Close()
		return nil, fmt.Errorf("layer %s: %w", p.desc.Digest, err)
	}
	return &plainLayer{desc: p.desc, packed: packed, stream: stream, budget: p.budget, room: p.room}, nil
}

type plainLayer struct {
	desc   ocispec.Descriptor
	packed io.Closer
	stream io.ReadCloser
	budget *atomic.Int64
	room   *room
}

// Reader is what content.NewReader asks for before it would use ReadAt.
func (p *plainLayer) Reader() io.Reader { return p }

// Read reads on within the budget, while there is room.
func (p *plainLayer) Read(b []byte) (int, error) {
	b = b[:min(len(b), askEvery)] // bytes that are read may become files at once
	n, err := p.stream.Read(b)
	if err := p.room.take(n); err != nil {
		return 0, fmt.Errorf("unpack layer %s: %w", p.desc.Digest, err)
	}
	if p.budget.Add(-int64(n)) < 0 {
		return 0, fmt.Errorf("layer %s, unpacked: %w for this node's bound of one image", p.desc.Digest, ErrTooLarge)
	}
	return n, err
}

// ReadAt is not possible: a compressed stream has no seeking.
func (p *plainLayer) ReadAt([]byte, int64) (int, error) { return 0, errors.ErrUnsupported }

// Size is not known before the end.
func (p *plainLayer) Size() int64 { return -1 }

// Close closes the layer.
func (p *plainLayer) Close() error {
	p.stream.Close()
	return p.packed.Close()
}
