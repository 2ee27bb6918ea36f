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
	"fmt"
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

// attach writes an artifact of one layer. It returns the digest of its manifest.
func attach(t *testing.T, reference, mediaType string, content []byte, annotations map[string]string, artifactType string, subject *ocispec.Descriptor) string {
	t.Helper()
	r, err := artifact.Parse(reference)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := artifact.Create(t.Context(), r, artifact.Access{}, func(s *artifact.Store) (ocispec.Descriptor, error) {
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
	return manifest
}

// signedStore is an artifact in a registry, and a key that signs it.
func signedStore(t *testing.T, registry *artifacttest.Faulty) (store *artifact.Store, reference, manifest string, key *ecdsa.PrivateKey, keys *signature.Keys) {
	t.Helper()
	reference = registry.Host + "/net"
	attach(t, reference+":1", "application/octet-stream", []byte("graph"), nil, "", nil)
	r, err := artifact.Parse(reference + ":1")
	if err != nil {
		t.Fatal(err)
	}
	if store, err = artifact.Open(t.Context(), r, artifact.Access{}); err != nil {
		t.Fatal(err)
	}
	m, err := store.Manifest(t.Context(), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	keys, err = signature.NewKeys(nil, signature.Signer{Key: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))})
	if err != nil {
		t.Fatal(err)
	}
	return store, reference, m.Digest, key, keys
}

// refer attaches an artifact with a bundle to a manifest. It returns the digest of its own.
func refer(t *testing.T, reference, name, manifest, bundle string) string {
	t.Helper()
	return attach(t, reference+":"+name, signature.BundleMediaType, []byte(bundle), nil, signature.BundleMediaType, &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.Digest(manifest), Size: 2})
}

func TestSignatures(t *testing.T) {
	registry := artifacttest.StartFaulty(t)
	store, reference, manifest, key, keys := signedStore(t, registry)
	if none, err := store.Signatures(t.Context(), manifest); err != nil || len(none) > 0 {
		t.Errorf("unsigned: %v, %v", none, err)
	}
	cosign(t, reference, manifest, key)
	found, err := store.Signatures(t.Context(), manifest)
	if err != nil || len(found) != 1 {
		t.Fatalf("signed: %v, %v", found, err)
	}
	if by, err := keys.Artifact(manifest, found); err != nil || !strings.HasPrefix(by, "key ") {
		t.Errorf("signed by %q, %v", by, err)
	}
	if _, err := keys.Artifact("sha256:"+strings.Repeat("0", 64), found); !errors.Is(err, signature.ErrUntrusted) {
		t.Errorf("for another artifact: %v", err)
	}
	// Bundles refer to what they sign.
	refer(t, reference, "bundle", manifest, `{"a":1}`)
	found, err = store.Signatures(t.Context(), manifest)
	if err != nil || len(found) != 2 || string(found[1].Bundle) != `{"a":1}` {
		t.Errorf("with a bundle: %+v, %v", found, err)
	}
	registry.Answer(503)
	if _, err := store.Signatures(t.Context(), manifest); !errors.Is(err, artifact.ErrUnreachable) {
		t.Errorf("offline: %v", err)
	}
}

// The signature of an index counts for what it lists, found by the index's name.
func TestSignaturesOfIndex(t *testing.T) {
	registry := artifacttest.StartFaulty(t)
	_, reference, manifest, key, keys := signedStore(t, registry)
	r, err := artifact.Parse(reference + ":all")
	if err != nil {
		t.Fatal(err)
	}
	index, err := artifact.Create(t.Context(), r, artifact.Access{}, func(s *artifact.Store) (ocispec.Descriptor, error) {
		return s.PushIndex(t.Context(), []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.Digest(manifest), Size: 2, Platform: &ocispec.Platform{OS: "linux", Architecture: "amd64"}}})
	})
	if err != nil {
		t.Fatal(err)
	}
	cosign(t, reference, index, key)
	for _, name := range []string{":all", "@" + index} {
		if r, err = artifact.Parse(reference + name); err != nil {
			t.Fatal(err)
		}
		store, err := artifact.Open(t.Context(), r, artifact.Access{})
		if err != nil {
			t.Fatal(err)
		}
		found, err := store.Signatures(t.Context(), manifest)
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: %v, %v", name, found, err)
		}
		if by, err := keys.Artifact(manifest, found); err != nil || !strings.HasPrefix(by, "key ") {
			t.Errorf("%s: signed by %q, %v", name, by, err)
		}
		if none, _ := store.Signatures(t.Context(), "sha256:"+strings.Repeat("0", 64)); len(none) > 0 {
			t.Errorf("%s: of what it does not list: %v", name, none)
		}
	}
}

// What others attached hides no signature, whether it is broken, large or much.
func TestSignaturesBesideBrokenOnes(t *testing.T) {
	registry := artifacttest.StartFaulty(t)
	store, reference, manifest, key, keys := signedStore(t, registry)
	trusted := func(what string, bundles int, says string) {
		t.Helper()
		found, err := store.Signatures(t.Context(), manifest)
		if len(found) != 1+bundles || !errors.Is(err, artifact.ErrManifest) && !errors.Is(err, artifact.ErrDigest) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %d signatures, %v, want %d and %q", what, len(found), err, 1+bundles, says)
		}
		if _, err := keys.Artifact(manifest, found); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	cosign(t, reference, manifest, key)
	refer(t, reference, "large", manifest, strings.Repeat("x", 1<<20))
	trusted("a large bundle", 0, "has 1048576 bytes")
	for i := range 40 {
		refer(t, reference, fmt.Sprint("junk", i), manifest, fmt.Sprint(i))
	}
	trusted("many bundles", 40, "has 1048576 bytes")
	broken := refer(t, reference, "broken", manifest, "broken")
	registry.Lie(broken, []byte("{"))
	if found, err := store.Signatures(t.Context(), manifest); len(found) != 41 || err == nil {
		t.Errorf("a broken manifest: %d signatures, %v", len(found), err)
	}
	// The one in cosign's own format may be the broken one.
	tag := strings.Replace(manifest, ":", "-", 1) + ".sig"
	attach(t, reference+":"+tag, signature.SimpleMediaType, make([]byte, 1<<20), map[string]string{signature.SimpleAnnotation: "x"}, "", nil)
	if found, err := store.Signatures(t.Context(), manifest); len(found) != 40 || err == nil {
		t.Errorf("a broken tag: %d signatures, %v", len(found), err)
	}
	// So much is read and no more.
	for i := range 150 {
		refer(t, reference, fmt.Sprint("full", i), manifest, fmt.Sprintf("%0*d", 256<<10, i))
	}
	registry.Sent()
	found, err := store.Signatures(t.Context(), manifest)
	if sent := registry.Sent(); sent > 32<<20 || len(found) < 100 || !errors.Is(err, artifact.ErrManifest) || !strings.Contains(err.Error(), "more than 33554432 bytes") {
		t.Errorf("too many: %d bytes, %d signatures, %v", sent, len(found), err)
	}
}
