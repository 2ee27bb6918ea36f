package artifact

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"

	"oscine.dev/oscine/internal/signature"
)

// maxSignatures bounds the bytes of all signatures of an artifact, with their manifests.
const maxSignatures = 32 << 20

// Signatures reads what cosign attached to the artifact with the digest of a manifest: by
// the tag that follows from the digest, and as artifacts that refer to it; to the index that
// lists it, too, if the reference names one. Anyone who may
// write to the repository can attach something broken, so that is left out. The error is about
// what could not be read; what could is returned with it.
func (s *Store) Signatures(ctx context.Context, digest string) ([]signature.Attached, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	r := signatureReader{Store: s, left: maxSignatures}
	err := r.attached(ctx, digest)
	if err == nil {
		err = r.ofIndex(ctx, digest)
	}
	return r.found, cmp.Or(err, r.broken)
}

// signatureReader reads the signatures of one artifact.
type signatureReader struct {
	*Store
	left   int64 // bytes that may still be read
	found  []signature.Attached
	broken error // why the first signature that was left out was
}

// leaveOut notes why a signature is left out. It returns an error that keeps the others from
// being read, too.
func (r *signatureReader) leaveOut(err error) error {
	if r.left < 0 || errdefs.IsUnavailable(err) || errors.Is(err, ErrDenied) || errors.Is(err, ErrCertificate) || errors.Is(err, context.Canceled) {
		return err
	}
	r.broken = cmp.Or(r.broken, err)
	return nil
}

// attached reads what was attached to the artifact with a digest.
func (r *signatureReader) attached(ctx context.Context, digest string) error {
	if err := r.tagged(ctx, strings.Replace(digest, ":", "-", 1)+".sig"); err != nil {
		return err
	}
	return r.referring(ctx, digest)
}

// ofIndex reads the signatures of the index that the reference names, if it lists the artifact:
// cosign signs the index alone, unless it is told to sign recursively.
func (r *signatureReader) ofIndex(ctx context.Context, digest string) error {
	index, err := r.from.Resolve(ctx, r.ref.name())
	if errors.Is(err, errdef.ErrNotFound) {
		return nil
	}
	if err != nil {
		return r.leaveOut(r.explain(late(ctx, err)))
	}
	if !isIndex(index) {
		return nil
	}
	raw, err := r.read(ctx, index, maxManifest)
	if err != nil {
		return r.leaveOut(err)
	}
	var list ocispec.Index
	if err := json.Unmarshal(raw, &list); err != nil || !slices.ContainsFunc(list.Manifests, func(d ocispec.Descriptor) bool { return d.Digest.String() == digest }) {
		return nil // it names another artifact now
	}
	before := len(r.found)
	err = r.attached(ctx, index.Digest.String())
	for i := range r.found[before:] {
		r.found[before+i].Index = raw
	}
	return err
}

// tagged reads signatures in cosign's own format, the layers of one artifact.
func (r *signatureReader) tagged(ctx context.Context, tag string) error {
	desc, err := r.from.Resolve(ctx, tag)
	if errors.Is(err, errdef.ErrNotFound) {
		return nil
	}
	if err != nil {
		return r.leaveOut(r.explain(late(ctx, err)))
	}
	layers, err := r.layers(ctx, desc, maxManifest)
	if err != nil {
		return r.leaveOut(err)
	}
	for _, layer := range layers {
		signed := layer.Annotations[signature.SimpleAnnotation]
		if layer.MediaType != signature.SimpleMediaType || signed == "" {
			continue
		}
		payload, err := r.read(ctx, layer, signature.MaxFileBytes)
		if err == nil {
			r.found = append(r.found, signature.Attached{Payload: payload, Signature: signed,
				Certificate: layer.Annotations[signature.CertificateAnnotation], Entry: layer.Annotations[signature.EntryAnnotation]})
		} else if err := r.leaveOut(err); err != nil {
			return err
		}
	}
	return nil
}

// referring reads Sigstore bundles that refer to an artifact.
func (r *signatureReader) referring(ctx context.Context, digest string) error {
	lister, ok := r.from.(registry.ReferrerLister)
	if !ok {
		return nil
	}
	desc, err := r.from.Resolve(ctx, digest)
	if err == nil {
		err = lister.Referrers(ctx, desc, signature.BundleMediaType, func(list []ocispec.Descriptor) error {
			for _, d := range list {
				err := r.bundle(ctx, d)
				if err := r.leaveOut(err); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return r.leaveOut(r.explain(late(ctx, err)))
}

// bundle reads the Sigstore bundle of a manifest, if it has one.
func (r *signatureReader) bundle(ctx context.Context, manifest ocispec.Descriptor) error {
	layers, err := r.layers(ctx, manifest, signature.MaxFileBytes)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(layers, func(l ocispec.Descriptor) bool { return l.MediaType == signature.BundleMediaType })
	if i < 0 {
		return nil
	}
	bundle, err := r.read(ctx, layers[i], signature.MaxFileBytes)
	if err == nil {
		r.found = append(r.found, signature.Attached{Bundle: bundle})
	}
	return err
}

func (r *signatureReader) layers(ctx context.Context, manifest ocispec.Descriptor, most int64) ([]ocispec.Descriptor, error) {
	raw, err := r.read(ctx, manifest, most)
	if err != nil {
		return nil, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("%w: the manifest of a signature of %s: %v", ErrManifest, r.ref, err)
	}
	return m.Layers, nil
}

// read is Bytes, within what may still be read.
func (r *signatureReader) read(ctx context.Context, d ocispec.Descriptor, most int64) ([]byte, error) {
	if err := check(d); err != nil {
		return nil, fmt.Errorf("%w: a signature of %s: %v", ErrManifest, r.ref, err)
	}
	if d.Size <= most { // else Bytes refuses it unread
		if r.left -= d.Size; r.left < 0 {
			return nil, fmt.Errorf("%w: the signatures of %s have more than %d bytes: remove those that are not needed", ErrManifest, r.ref, maxSignatures)
		}
	}
	return r.Bytes(ctx, d, most)
}
