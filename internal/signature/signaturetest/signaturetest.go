package signaturetest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"maps"
	"slices"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
)

// Signer signs models with a key of its own.
type Signer struct {
	PEM string // its public key

	t   testing.TB
	key *ecdsa.PrivateKey
}

// New makes a signer.
func New(t testing.TB) *Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return &Signer{PEM: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), t: t, key: key}
}

// Sign returns the signature of files by their names, "." for that of a model that is one.
func (s *Signer) Sign(files map[string]string) string {
	s.t.Helper()
	const inToto = "application/vnd.in-toto+json"
	statement := modelStatement(s.t, files)
	raw, err := json.Marshal(map[string]any{"dsseEnvelope": map[string]any{"payload": statement, "payloadType": inToto, "signatures": []map[string]any{{"sig": s.SignText(dsse.PAE(inToto, statement))}}}})
	if err != nil {
		s.t.Fatal(err)
	}
	return string(raw)
}

// modelStatement is what OpenSSF model signing signs of files.
func modelStatement(t testing.TB, files map[string]string) []byte {
	t.Helper()
	all := sha256.New()
	var resources []map[string]string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		sum := sha256.Sum256([]byte(files[name]))
		all.Write(sum[:])
		resources = append(resources, map[string]string{"name": name, "algorithm": "sha256", "digest": hex.EncodeToString(sum[:])})
	}
	statement, err := json.Marshal(map[string]any{
		"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://model_signing/signature/v1.0",
		"subject":   []map[string]any{{"name": "m", "digest": map[string]string{"sha256": hex.EncodeToString(all.Sum(nil))}}},
		"predicate": map[string]any{"serialization": map[string]any{"method": "files", "hash_type": "sha256"}, "resources": resources},
	})
	if err != nil {
		t.Fatal(err)
	}
	return statement
}

// SignText returns the signature of a text, as cosign signs its payload.
func (s *Signer) SignText(text []byte) []byte {
	s.t.Helper()
	sum := sha256.Sum256(text)
	signed, err := s.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		s.t.Fatal(err)
	}
	return signed
}
