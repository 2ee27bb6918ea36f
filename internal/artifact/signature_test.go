package artifact_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	sigstore "github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/payload"

	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/artifact/artifacttest"
	"oscine.dev/oscine/internal/signature"
)

// cosign attaches a signature to an artifact, as cosign sign --key does: its payload and the signature
// are Sigstore's own, under the tag that cosign gives them.
func cosign(t *testing.T, reference, manifest string, key *ecdsa.PrivateKey) {
	t.Helper()
	of, err := name.NewDigest(reference + "@" + manifest)
	if err != nil {
		t.Fatal(err)
	}
	text, err := payload.Cosign{Image: of}.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	signer, err := sigstore.LoadDefaultSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.SignMessage(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	attach(t, reference+":"+strings.Replace(manifest, ":", "-", 1)+".sig", signature.SimpleMediaType, text, map[string]string{signature.SimpleAnnotation: base64.StdEncoding.EncodeToString(signed)}, "", nil)
}

// attach writes an artifact of one layer.
func attach(t *testing.T, reference, mediaType string, content []byte, annotations map[string]string, artifactType string, subject *ocispec.Descriptor) {
	t.Helper()
	r, err := artifact.Parse(reference)
	if err != nil {
		t.Fatal(err)
	}
	_, err = artifact.Create(t.Context(), r, artifact.Access{}, func(s *artifact.Store) (ocispec.Descriptor, error) {
		config, err := s.PushBytes(t.Context(), "application/vnd.oci.image.config.v1+json", []byte("{}"))
		if err != nil {
			return config, err
		}
		layer, err := s.PushBytes(t.Context(), mediaType, content)
		if err != nil {
			return layer, err
		}
		layer.Annotations = annotations
		return s.PushManifest(t.Context(), ocispec.Manifest{Config: config, Layers: []ocispec.Descriptor{layer}, ArtifactType: artifactType, Subject: subject})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSignatures(t *testing.T) {
	registry := artifacttest.StartFaulty(t)
	reference := registry.Host + "/net"
	attach(t, reference+":1", "application/octet-stream", []byte("graph"), nil, "", nil)
	r, err := artifact.Parse(reference + ":1")
	if err != nil {
		t.Fatal(err)
	}
	store, err := artifact.Open(t.Context(), r, artifact.Access{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := store.Manifest(t.Context(), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if none, err := store.Signatures(t.Context(), m.Digest); err != nil || len(none) > 0 {
		t.Errorf("unsigned: %v, %v", none, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	keys, err := signature.ParseKeys(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	if err != nil {
		t.Fatal(err)
	}
	cosign(t, reference, m.Digest, key)
	found, err := store.Signatures(t.Context(), m.Digest)
	if err != nil || len(found) != 1 {
		t.Fatalf("signed: %v, %v", found, err)
	}
	if by, err := keys.Artifact(m.Digest, found); err != nil || !strings.HasPrefix(by, "key ") {
		t.Errorf("signed by %q, %v", by, err)
	}
	if _, err := keys.Artifact("sha256:"+strings.Repeat("0", 64), found); !errors.Is(err, signature.ErrUntrusted) {
		t.Errorf("for another artifact: %v", err)
	}
	// Bundles refer to what they sign.
	attach(t, reference+":bundle", signature.BundleMediaType, []byte(`{"a":1}`), nil, signature.BundleMediaType, &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.Digest(m.Digest), Size: 2})
	found, err = store.Signatures(t.Context(), m.Digest)
	if err != nil || len(found) != 2 || string(found[1].Bundle) != `{"a":1}` {
		t.Errorf("with a bundle: %+v, %v", found, err)
	}
	registry.Answer(503)
	if _, err := store.Signatures(t.Context(), m.Digest); !errors.Is(err, artifact.ErrUnreachable) {
		t.Errorf("offline: %v", err)
	}
}
