package artifact

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/oci"

	"oscine.dev/oscine/internal/bounded"
)

// Bounds of what is read of an artifact before its layers.
const (
	maxManifest = 4 << 20
	// answerTime is how long a registry may take for a manifest, with retries.
	answerTime = time.Minute
)

// The media types of images, which Docker's own tools write and registries may
// turn into each other.
const (
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	DockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// Store is where an artifact lies or is to lie. It is safe for concurrent use.
type Store struct {
	ref    Reference
	access Access
	from   oras.ReadOnlyTarget
	to     oras.Target // nil for what is only read
	stall  time.Duration
}

// Open opens where a reference leads for reading. It asks no registry yet.
func Open(ctx context.Context, r Reference, a Access) (*Store, error) {
	s := &Store{ref: r, access: a, stall: stallTime}
	if !r.Local() {
		repo, err := a.repository(r)
		if err != nil {
			return nil, err
		}
		s.from, s.to = repo, repo
		return s, nil
	}
	info, err := os.Stat(r.layout)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no OCI layout %s on this computer: write oci:FOLDER:TAG or oci:FILE.tar:TAG, or oci://HOST/REPOSITORY:TAG for a registry", ErrNotFound, r.layout)
	}
	if err != nil {
		return nil, fmt.Errorf("open the OCI layout: %w", err)
	}
	if info.IsDir() {
		s.from, err = oci.NewFromFS(ctx, os.DirFS(r.layout))
	} else {
		s.from, err = oci.NewFromTar(ctx, r.layout)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s is no OCI layout: %v", ErrManifest, r.layout, err)
	}
	return s, nil
}

// Reference is the reference that was opened.
func (s *Store) Reference() Reference { return s.ref }

// Manifest is an artifact's manifest.
type Manifest struct {
	ocispec.Manifest
	Digest string // of the manifest
}

// Manifest reads the manifest that the reference names; where that is an index, the
// one for an architecture.
func (s *Store) Manifest(ctx context.Context, arch string) (*Manifest, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	desc, err := s.from.Resolve(ctx, s.ref.name())
	if err != nil {
		return nil, s.explain(late(ctx, err))
	}
	if isIndex(desc) {
		if desc, err = s.choose(ctx, desc, arch); err != nil {
			return nil, err
		}
	}
	if desc.MediaType != ocispec.MediaTypeImageManifest && desc.MediaType != DockerManifest {
		return nil, fmt.Errorf("%w: %s is of the media type %.100q, not a manifest", ErrManifest, s.ref, desc.MediaType)
	}
	raw, err := s.Bytes(ctx, desc, maxManifest)
	if err != nil {
		return nil, err
	}
	m := &Manifest{Digest: desc.Digest.String()}
	if err := json.Unmarshal(raw, &m.Manifest); err != nil {
		return nil, fmt.Errorf("%w: the manifest of %s: %v", ErrManifest, s.ref, err)
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if err := check(d); err != nil {
			return nil, fmt.Errorf("%w: the manifest of %s: %v", ErrManifest, s.ref, err)
		}
	}
	return m, nil
}

func isIndex(d ocispec.Descriptor) bool {
	return d.MediaType == ocispec.MediaTypeImageIndex || d.MediaType == DockerIndex
}

// check refuses a descriptor that later steps could not trust.
func check(d ocispec.Descriptor) error {
	if d.Size < 0 {
		return fmt.Errorf("a size of %d bytes", d.Size)
	}
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("%.100q: %v", d.Digest, err)
	}
	return nil
}

// choose finds the manifest for an architecture in an index.
func (s *Store) choose(ctx context.Context, index ocispec.Descriptor, arch string) (ocispec.Descriptor, error) {
	raw, err := s.Bytes(ctx, index, maxManifest)
	if err != nil {
		return index, err
	}
	var list ocispec.Index
	if err := json.Unmarshal(raw, &list); err != nil {
		return index, fmt.Errorf("%w: the index of %s: %v", ErrManifest, s.ref, err)
	}
	var have []string
	for _, m := range list.Manifests {
		if m.Platform == nil {
			continue
		}
		if m.Platform.Architecture == arch {
			return m, check(m)
		}
		have = append(have, m.Platform.Architecture)
	}
	if len(list.Manifests) == 1 && list.Manifests[0].Platform == nil {
		return list.Manifests[0], check(list.Manifests[0])
	}
	return index, fmt.Errorf("%w: %s has nothing for %s, only for %.200q", ErrNotFound, s.ref, arch, have)
}

// Bytes reads a blob or manifest of at most so many bytes and checks its digest.
func (s *Store) Bytes(ctx context.Context, d ocispec.Descriptor, most int64) ([]byte, error) {
	if d.Size > most {
		return nil, fmt.Errorf("%w: %s: %s has %d bytes, at most %d are read", ErrManifest, s.ref, d.Digest, d.Size, most)
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	raw, err := content.FetchAll(ctx, s.from, d)
	if errors.Is(err, content.ErrMismatchedDigest) || errors.Is(err, content.ErrTrailingData) {
		err = fmt.Errorf("%w: %s: %s", ErrDigest, s.ref, d.Digest)
	}
	return raw, s.explain(late(ctx, err))
}

// late says that a registry did not answer in time.
func late(ctx context.Context, err error) error {
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%w: no answer in time: %w", ErrUnreachable, err)
	}
	return err
}

// Create writes an artifact: fill pushes its blobs and returns the descriptor of
// its manifest, which then gets the reference's tag. A tar file is there whole
// or not at all. It returns the manifest's digest.
func Create(ctx context.Context, r Reference, a Access, fill func(*Store) (ocispec.Descriptor, error)) (string, error) {
	if r.Tag() == "" {
		return "", fmt.Errorf("%w: %s: what is pushed gets a tag, its digest follows from its content", ErrReference, r)
	}
	s := &Store{ref: r, access: a, stall: stallTime}
	var err error
	switch {
	case !r.Local():
		if s, err = Open(ctx, r, a); err != nil {
			return "", err
		}
	case r.tar():
		return createTar(ctx, r, a, fill)
	default:
		layout, err := oci.NewWithContext(ctx, r.layout)
		if err != nil {
			return "", fmt.Errorf("%w: %s is no OCI layout: %v", ErrManifest, r.layout, err)
		}
		s.from, s.to = layout, layout
	}
	desc, err := fill(s)
	if err != nil {
		return "", err
	}
	return desc.Digest.String(), s.explain(s.to.Tag(ctx, desc, r.Tag()))
}

// PushBytes writes a small blob. What is there already is not sent.
func (s *Store) PushBytes(ctx context.Context, mediaType string, data []byte) (ocispec.Descriptor, error) {
	d := content.NewDescriptorFromBytes(mediaType, data)
	there, err := s.to.Exists(ctx, d)
	if err == nil && !there {
		err = s.to.Push(ctx, d, bytes.NewReader(data))
	}
	return d, s.explain(err)
}

// PushManifest writes a manifest.
func (s *Store) PushManifest(ctx context.Context, m ocispec.Manifest) (ocispec.Descriptor, error) {
	m.Versioned, m.MediaType = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageManifest
	raw, err := json.Marshal(m)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d, err := s.PushBytes(ctx, m.MediaType, raw)
	d.ArtifactType = m.ArtifactType
	return d, err
}

// PushIndex writes an index of manifests.
func (s *Store) PushIndex(ctx context.Context, manifests []ocispec.Descriptor) (ocispec.Descriptor, error) {
	raw, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return s.PushBytes(ctx, ocispec.MediaTypeImageIndex, raw)
}

// PushBlob writes a blob from what open opens, which must have the descriptor's
// digest and size. What is there already is not sent; what is cut is sent again.
func (s *Store) PushBlob(ctx context.Context, d ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	return bounded.Retry(ctx, errdefs.IsUnavailable, func() (further bool, err error) {
		there, err := s.to.Exists(ctx, d)
		if err == nil && !there {
			err = s.pushOnce(ctx, d, open)
		}
		return false, s.explain(err)
	})
}

func (s *Store) pushOnce(ctx context.Context, d ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	return s.to.Push(ctx, d, r)
}

// Progress wraps what is read of a file of so many bytes.
type Progress func(name string, size int64, r io.ReadCloser) io.ReadCloser

// PushFile writes a file as a blob, which it describes with annotations. Progress is
// told the file by the name.
func (s *Store) PushFile(ctx context.Context, mediaType, file, name string, annotations map[string]string, progress Progress) (d ocispec.Descriptor, err error) {
	f, err := os.Open(file)
	if err != nil {
		return d, err
	}
	d, err = Descriptor(mediaType, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return d, fmt.Errorf("read %s: %w", file, err)
	}
	d.Annotations = annotations
	return d, s.PushBlob(ctx, d, func() (io.ReadCloser, error) {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		return progress(name, d.Size, f), nil
	})
}

// Descriptor describes what r holds.
func Descriptor(mediaType string, r io.Reader) (ocispec.Descriptor, error) {
	sum := digest.SHA256.Digester()
	n, err := io.Copy(sum.Hash(), r)
	return ocispec.Descriptor{MediaType: mediaType, Digest: sum.Digest(), Size: n}, err
}
