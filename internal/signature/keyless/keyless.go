package keyless

import (
	"bytes"
	"fmt"

	bundlepb "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"oscine.dev/oscine/internal/signature"
)

// Root is a trusted root: the certificate authorities and transparency logs of one Sigstore or
// several. It is safe for concurrent use.
type Root struct{ verifier *verify.Verifier }

// ParseRoot reads a trusted root, Sigstore's trusted_root.json. A signature needs what the root
// can tell of: an entry of its transparency logs, where it has any, a certificate that stands in
// its logs of certificates, and the time by either log or a timestamp authority.
func ParseRoot(text []byte) (*Root, error) {
	if err := signature.CheckRoot(text); err != nil {
		return nil, err
	}
	r, err := root.NewTrustedRootFromJSON(text)
	if err != nil {
		return nil, fmt.Errorf("must be a trusted root of Sigstore (trusted_root.json): %w", err)
	}
	options := []verify.VerifierOption{verify.WithObserverTimestamps(1)}
	if len(r.RekorLogs()) > 0 {
		options = append(options, verify.WithTransparencyLog(1))
	}
	if len(r.CTLogs()) > 0 {
		options = append(options, verify.WithSignedCertificateTimestamps(1))
	}
	v, err := verify.NewVerifier(r, options...)
	if err != nil {
		return nil, err
	}
	return &Root{v}, nil
}

// Verify implements signature.Root.
func (r *Root) Verify(b *bundlepb.Bundle, payload []byte, identities []signature.Signer) (by string, err error) {
	entity, err := bundle.NewBundle(b)
	if err != nil {
		return "", fmt.Errorf("its signature: %w", err)
	}
	var options []verify.PolicyOption
	for _, s := range identities {
		id, err := verify.NewShortCertificateIdentity(s.Issuer, "", s.Identity, s.IdentityRegexp)
		if err != nil {
			return "", err
		}
		options = append(options, verify.WithCertificateIdentity(id))
	}
	of := verify.WithoutArtifactUnsafe() // what the statement is about is compared by the caller
	if payload != nil {
		of = verify.WithArtifact(bytes.NewReader(payload))
	}
	result, err := r.verifier.Verify(entity, verify.NewPolicy(of, options...))
	if err != nil {
		return "", fmt.Errorf("its keyless signature: %w", err)
	}
	c := result.Signature.Certificate
	return fmt.Sprintf("%s (%s)", c.SubjectAlternativeName, c.Issuer), nil
}
