package signature

import (
	"encoding/base64"
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
	if material.GetCertificate() != nil {
		return "", fmt.Errorf("%w: it was signed keyless, with a certificate of Fulcio: sign it with a key or an own certificate, for this needs Sigstore's servers", ErrUntrusted)
	}
	var why error
	if chain := material.GetX509CertificateChain(); chain != nil {
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
		s, by, err := k.open(a.Bundle)
		if err != nil {
			return "", err
		}
		if s.PredicateType != cosignPredicate || len(s.Subject) != 1 {
			return "", fmt.Errorf("%w: what is signed is a statement of the type %.100q, not a signature of cosign", ErrUntrusted, s.PredicateType)
		}
		if signed = "sha256:" + s.Subject[0].Digest["sha256"]; signed == digest {
			return by, nil
		}
	} else {
		raw, err := base64.StdEncoding.DecodeString(a.Signature)
		if err != nil {
			return "", fmt.Errorf("%w: its signature is not base64", ErrUntrusted)
		}
		by, ok := k.signer(a.Payload, raw)
		if !ok {
			return "", fmt.Errorf("%w: its artifact was signed with another key; trusted are %s", ErrUntrusted, k)
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
			return "", fmt.Errorf("%w: what is signed is of the type %.100q, not a signature of cosign", ErrUntrusted, payload.Critical.Type)
		}
		if signed = payload.Critical.Image.Digest; signed == digest {
			return by, nil
		}
	}
	return "", fmt.Errorf("%w: its signature is of another artifact, %.100s, and it is %s", ErrUntrusted, signed, digest)
}
