package signature

import (
	"crypto"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	bundlepb "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

// Bounds of a signature, in bytes.
const (
	MaxBytes     = 8 << 20   // one of the most files that a model may have
	MaxFileBytes = 256 << 10 // one of one file, or of an artifact
)

// Names of the formats.
const (
	BundleMediaType = "application/vnd.dev.sigstore.bundle.v0.3+json" // of a Sigstore bundle
	SimpleMediaType = "application/vnd.dev.cosign.simplesigning.v1+json"
	// SimpleAnnotation is the annotation of a layer of SimpleMediaType that has its signature.
	SimpleAnnotation = "dev.cosignproject.cosign/signature"
	// CertificateAnnotation and EntryAnnotation are those of a keyless one.
	CertificateAnnotation = "dev.sigstore.cosign/certificate"
	EntryAnnotation       = "dev.sigstore.cosign/bundle"

	inTotoType      = "application/vnd.in-toto+json"
	statementType   = "https://in-toto.io/Statement/v1"
	modelPredicate  = "https://model_signing/signature/v1.0"
	cosignPredicate = "https://sigstore.dev/cosign/sign/v1"
	simpleType      = "cosign container image signature"
)

// statement is what is signed in a bundle.
type statement struct {
	Type          string          `json:"_type"`
	Subject       []subject       `json:"subject"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate"`
}

type subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

// open verifies a Sigstore bundle and returns what it signs, and who signed it.
func (k *Keys) open(raw []byte) (*statement, string, error) {
	if len(raw) > MaxBytes {
		return nil, "", fmt.Errorf("%w: its signature has %d bytes, at most %d are read", ErrUntrusted, len(raw), MaxBytes)
	}
	var b bundlepb.Bundle
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, &b); err != nil {
		return nil, "", fmt.Errorf("%w: its signature is no Sigstore bundle: %w", ErrUntrusted, err)
	}
	envelope := b.GetDsseEnvelope()
	if envelope == nil || len(envelope.GetSignatures()) != 1 || envelope.GetPayloadType() != inTotoType {
		return nil, "", fmt.Errorf("%w: its signature is no Sigstore bundle with one signed in-toto statement", ErrUntrusted)
	}
	by, err := k.bundleSigner(&b, dsse.PAE(envelope.PayloadType, envelope.Payload), envelope.Signatures[0].GetSig())
	if err != nil {
		return nil, "", err
	}
	var s statement
	if err := json.Unmarshal(envelope.Payload, &s); err != nil || s.Type != statementType {
		return nil, "", fmt.Errorf("%w: what is signed is no in-toto statement (%.100q)", ErrUntrusted, s.Type)
	}
	return &s, by, nil
}

func (k *Keys) bundleSigner(b *bundlepb.Bundle, text, signed []byte) (string, error) {
	material := b.GetVerificationMaterial()
	chain := material.GetX509CertificateChain()
	var why error
	if material.GetCertificate() != nil || chain != nil && len(k.identities) > 0 {
		by, err := k.keyless(b, nil)
		if err == nil {
			return by, nil
		}
		why = err
	}
	if chain != nil && (why == nil || len(k.roots) > 0) {
		var certificates [][]byte
		for _, c := range chain.GetCertificates() {
			certificates = append(certificates, c.GetRawBytes())
		}
		by, err := k.certified(certificates, text, signed)
		if err == nil {
			return by, nil
		}
		why = err
	}
	if by, ok := k.signer(text, signed); ok {
		return by, nil
	}
	if why != nil {
		return "", fmt.Errorf("%w: %w; trusted are %s", ErrUntrusted, why, k)
	}
	return "", fmt.Errorf("%w: it was signed with another key; trusted are %s", ErrUntrusted, k)
}

// Attached is a signature of an artifact in a registry, as cosign attaches it.
type Attached struct {
	Bundle    []byte `json:"bundle,omitempty"`    // a Sigstore bundle; else:
	Payload   []byte `json:"payload,omitempty"`   // of cosign's own format
	Signature string `json:"signature,omitempty"` // of it, in base64
	// Of a keyless one, the certificate in PEM, and the entry in the transparency log.
	Certificate string `json:"certificate,omitempty"`
	Entry       string `json:"entry,omitempty"`

	// Index is the index that the signature is of, where it is not of the artifact itself.
	Index []byte `json:"index,omitempty"`
}

// Artifact returns who signed the artifact with the digest of a manifest. What nobody among the
// keys signed is ErrUntrusted.
func (k *Keys) Artifact(digest string, signatures []Attached) (by string, err error) {
	if len(signatures) == 0 {
		return "", fmt.Errorf("%w: its artifact has no signature: sign it with cosign sign --key", ErrUntrusted)
	}
	for _, s := range signatures {
		if by, err = k.attached(digest, s); err == nil {
			return by, nil
		}
	}
	return "", err
}

func (k *Keys) attached(digest string, a Attached) (by string, err error) {
	signed := ""
	if len(a.Bundle) > 0 {
		signed, by, err = k.attachedBundle(a.Bundle)
	} else {
		signed, by, err = k.attachedPayload(a)
	}
	if err != nil {
		return "", err
	}
	if signed == digest || len(a.Index) > 0 && lists(a.Index, signed, digest) {
		return by, nil
	}
	return "", fmt.Errorf("%w: its signature is of another artifact, %.100s, and it is %s", ErrUntrusted, signed, digest)
}

// lists reports whether an index has one digest itself and lists the other.
func lists(index []byte, own, digest string) bool {
	var list struct {
		Manifests []struct {
			Digest string `json:"digest"`
		} `json:"manifests"`
	}
	if own != "sha256:"+hex.EncodeToString(sum(crypto.SHA256, index)) || json.Unmarshal(index, &list) != nil {
		return false
	}
	for _, m := range list.Manifests {
		if m.Digest == digest {
			return true
		}
	}
	return false
}

// attachedBundle returns of which artifact a bundle is a signature, and who signed it.
func (k *Keys) attachedBundle(raw []byte) (signed, by string, err error) {
	s, by, err := k.open(raw)
	if err != nil {
		return "", "", err
	}
	if s.PredicateType != cosignPredicate || len(s.Subject) != 1 {
		return "", "", fmt.Errorf("%w: what is signed is a statement of the type %.100q, not a signature of cosign", ErrUntrusted, s.PredicateType)
	}
	return "sha256:" + s.Subject[0].Digest["sha256"], by, nil
}

// attachedPayload is attachedBundle for cosign's own format.
func (k *Keys) attachedPayload(a Attached) (signed, by string, err error) {
	raw, err := base64.StdEncoding.DecodeString(a.Signature)
	if err != nil {
		return "", "", fmt.Errorf("%w: its signature is not base64", ErrUntrusted)
	}
	by, ok := k.signer(a.Payload, raw)
	if !ok && a.Certificate != "" {
		if by, err = k.certifiedPayload(a, raw); err != nil {
			return "", "", fmt.Errorf("%w: %w; trusted are %s", ErrUntrusted, err, k)
		}
		ok = true
	}
	if !ok {
		return "", "", fmt.Errorf("%w: its artifact was signed with another key; trusted are %s", ErrUntrusted, k)
	}
	var payload struct {
		Critical struct {
			Type  string `json:"type"`
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(a.Payload, &payload); err != nil || payload.Critical.Type != simpleType {
		return "", "", fmt.Errorf("%w: what is signed is of the type %.100q, not a signature of cosign", ErrUntrusted, payload.Critical.Type)
	}
	return payload.Critical.Image.Digest, by, nil
}

func (k *Keys) certifiedPayload(a Attached, signed []byte) (by string, err error) {
	b, err := a.bundle(signed)
	if err != nil {
		return "", err
	}
	return k.keyless(b, a.Payload)
}
