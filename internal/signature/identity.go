package signature

import (
	"cmp"
	"crypto"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"

	bundlepb "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	commonpb "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	rekorpb "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	rootpb "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

// maxIdentity bounds the texts of an identity, in bytes.
const maxIdentity = 2048

// Signer is one whose signature counts: a key, or who signs keyless, with a certificate of
// Sigstore's for a few minutes.
type Signer struct {
	Key            string // public keys or certificates of authorities, in PEM; else:
	Identity       string // an e-mail address or a URI, as the certificate has it, or:
	IdentityRegexp string // a regular expression that is found in it
	Issuer         string // who vouched for the identity, the URL of an OpenID Connect provider
}

// name says whose signature it is.
func (s Signer) name() string {
	return fmt.Sprintf("identity %q of %s", cmp.Or(s.Identity, s.IdentityRegexp), s.Issuer)
}

// check says what is wrong with an identity.
func (s Signer) check() error {
	switch {
	case s.Identity == "" && s.IdentityRegexp == "":
		return errors.New("needs a key, an identity or an identityRegexp")
	case s.Identity != "" && s.IdentityRegexp != "":
		return errors.New("has identity and identityRegexp: one says it")
	case s.Issuer == "":
		return errors.New("needs the issuer of the identity, such as https://accounts.google.com: anyone may be named so by another")
	case len(s.Identity)+len(s.IdentityRegexp)+len(s.Issuer) > maxIdentity:
		return fmt.Errorf("has more than %d bytes", maxIdentity)
	}
	if _, err := regexp.Compile(s.IdentityRegexp); err != nil {
		return fmt.Errorf("identityRegexp: %w", err)
	}
	return nil
}

// Root is a trusted root, by which keyless signatures are verified; package keyless has it. It is
// safe for concurrent use.
type Root interface {
	// Verify returns who among the identities signed a bundle. payload is what was signed, nil
	// where the bundle holds it.
	Verify(b *bundlepb.Bundle, payload []byte, identities []Signer) (by string, err error)
}

// MaxRoot bounds a trusted root in bytes.
const MaxRoot = 256 << 10

// CheckRoot says what is wrong with the form of a trusted root, Sigstore's trusted_root.json.
func CheckRoot(text []byte) error {
	if len(text) > MaxRoot {
		return fmt.Errorf("has %d bytes, at most %d are accepted", len(text), MaxRoot)
	}
	if !json.Valid(text) {
		return errors.New("must be a trusted root of Sigstore, the JSON of a trusted_root.json")
	}
	var r rootpb.TrustedRoot
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, &r); err != nil {
		return fmt.Errorf("must be a trusted root of Sigstore (trusted_root.json): %w", err)
	}
	if len(r.GetCertificateAuthorities()) == 0 {
		return errors.New("has no certificate authority: give the trusted_root.json of a Sigstore")
	}
	return nil
}

// keyless returns who signed a bundle with a certificate of Sigstore's; payload is what was
// signed, nil where the bundle holds it.
func (k *Keys) keyless(b *bundlepb.Bundle, payload []byte) (by string, err error) {
	if len(k.identities) == 0 {
		return "", errors.New("it was signed keyless, and no identity is trusted: name who may sign by identity and issuer, or sign it with a key")
	}
	if k.root == nil {
		return "", errors.New("it was signed keyless, and there is no trusted root to verify it with: give a node one by its Machine's spec.models.trustedRoot")
	}
	return k.root.Verify(b, payload, k.identities)
}

// rekorBundle is what cosign's own format keeps of the entry in the transparency log.
type rekorBundle struct {
	SignedEntryTimestamp []byte
	Payload              struct {
		Body           []byte `json:"body"`
		IntegratedTime int64  `json:"integratedTime"`
		LogIndex       int64  `json:"logIndex"`
		LogID          string `json:"logID"`
	}
}

// bundle is a keyless signature of cosign's own format as a Sigstore bundle, as cosign reads it.
func (a Attached) bundle(signed []byte) (*bundlepb.Bundle, error) {
	block, _ := pem.Decode([]byte(a.Certificate))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("its certificate is not in PEM")
	}
	material := &bundlepb.VerificationMaterial{Content: &bundlepb.VerificationMaterial_X509CertificateChain{
		X509CertificateChain: &commonpb.X509CertificateChain{Certificates: []*commonpb.X509Certificate{{RawBytes: block.Bytes}}}}}
	if a.Entry != "" {
		entry, err := logEntry(a.Entry)
		if err != nil {
			return nil, fmt.Errorf("its entry of the transparency log: %w", err)
		}
		material.TlogEntries = []*rekorpb.TransparencyLogEntry{entry}
	}
	return &bundlepb.Bundle{
		MediaType: "application/vnd.dev.sigstore.bundle+json;version=0.1", VerificationMaterial: material,
		Content: &bundlepb.Bundle_MessageSignature{MessageSignature: &commonpb.MessageSignature{
			MessageDigest: &commonpb.HashOutput{Algorithm: commonpb.HashAlgorithm_SHA2_256, Digest: sum(crypto.SHA256, a.Payload)}, Signature: signed}},
	}, nil
}

func logEntry(text string) (*rekorpb.TransparencyLogEntry, error) {
	var r rekorBundle
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return nil, err
	}
	log, err := hex.DecodeString(r.Payload.LogID)
	if err != nil {
		return nil, err
	}
	var body struct {
		Kind       string `json:"kind"`
		APIVersion string `json:"apiVersion"`
	}
	if err := json.Unmarshal(r.Payload.Body, &body); err != nil {
		return nil, err
	}
	return &rekorpb.TransparencyLogEntry{
		LogIndex: r.Payload.LogIndex, LogId: &commonpb.LogId{KeyId: log}, IntegratedTime: r.Payload.IntegratedTime, CanonicalizedBody: r.Payload.Body,
		KindVersion:      &rekorpb.KindVersion{Kind: body.Kind, Version: body.APIVersion},
		InclusionPromise: &rekorpb.InclusionPromise{SignedEntryTimestamp: r.SignedEntryTimestamp},
	}, nil
}
