package artifact

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"

	"oscine.dev/oscine/internal/signature"
)

const (
	// maxSignatures is how many signatures of an artifact are read.
	maxSignatures = 32
	// maxSignature bounds the bytes of one.
	maxSignature = 1 << 20
)

// Signatures reads what cosign attached to the artifact with the digest of a manifest: by
// the tag that follows from the digest, and as artifacts that refer to it.
func (s *Store) Signatures(ctx context.Context, digest string) ([]signature.Attached, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	tagged, err := s.taggedSignatures(ctx, strings.Replace(digest, ":", "-", 1)+".sig")
	if err != nil {
		return nil, s.explain(late(ctx, err))
	}
	referring, err := s.referringSignatures(ctx, digest)
	return append(tagged, referring...), s.explain(late(ctx, err))
}

func (s *Store) taggedSignatures(ctx context.Context, tag string) ([]signature.Attached, error) {
	desc, err := s.from.Resolve(ctx, tag)
	if errors.Is(err, errdef.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m, err := s.signatureManifest(ctx, desc)
	if err != nil {
		return nil, err
	}
	var list []signature.Attached
	for _, layer := range m.Layers {
		signed := layer.Annotations[signature.SimpleAnnotation]
		if layer.MediaType != signature.SimpleMediaType || signed == "" {
			continue
		}
		payload, err := s.Bytes(ctx, layer, maxSignature)
		if err != nil {
			return nil, err
		}
		if list = append(list, signature.Attached{Payload: payload, Signature: signed}); len(list) == maxSignatures {
			break
		}
	}
	return list, nil
}

// referringSignatures reads Sigstore bundles that refer to an artifact.
func (s *Store) referringSignatures(ctx context.Context, digest string) ([]signature.Attached, error) {
	lister, ok := s.from.(registry.ReferrerLister)
	if !ok {
		return nil, nil
	}
	desc, err := s.from.Resolve(ctx, digest)
	if err != nil {
		return nil, err
	}
	var found []ocispec.Descriptor
	enough := errors.New("enough")
	err = lister.Referrers(ctx, desc, signature.BundleMediaType, func(list []ocispec.Descriptor) error {
		if found = append(found, list...); len(found) >= maxSignatures {
			found = found[:maxSignatures]
			return enough
		}
		return nil
	})
	if err != nil && !errors.Is(err, enough) {
		return nil, err
	}
	var list []signature.Attached
	for _, d := range found {
		m, err := s.signatureManifest(ctx, d)
		if err != nil {
			return nil, err
		}
		for _, layer := range m.Layers {
			if layer.MediaType != signature.BundleMediaType {
				continue
			}
			bundle, err := s.Bytes(ctx, layer, maxSignature)
			if err != nil {
				return nil, err
			}
			list = append(list, signature.Attached{Bundle: bundle})
			break
		}
	}
	return list, nil
}

func (s *Store) signatureManifest(ctx context.Context, desc ocispec.Descriptor) (*ocispec.Manifest, error) {
	raw, err := s.Bytes(ctx, desc, maxManifest)
	if err != nil {
		return nil, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("%w: the manifest of a signature of %s: %v", ErrManifest, s.ref, err)
	}
	for _, layer := range m.Layers {
		if err := check(layer); err != nil {
			return nil, fmt.Errorf("%w: the manifest of a signature of %s: %v", ErrManifest, s.ref, err)
		}
	}
	return &m, nil
}
