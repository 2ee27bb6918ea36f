package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Renewal is a client's request for another certificate, of the same name and
// role and for another key. It may pass through any hands.
type Renewal struct {
	Request   []byte    `json:"request"`   // PKCS #10, PEM: signed by the new key
	Signature Signature `json:"signature"` // of the request, by the certificate to renew
}

// renewalPurpose begins what Renewal.Signature signs.
const renewalPurpose = "oscine renews a client certificate\x00"

// NewRenewal asks for a certificate for key, a PEM that NewKey made, in place of a
// client's.
func NewRenewal(client tls.Certificate, key []byte) (Renewal, error) {
	request, err := NewRequest(key)
	if err != nil {
		return Renewal{}, err
	}
	signature, err := Sign(client, append([]byte(renewalPurpose), request...))
	return Renewal{request, signature}, err
}

// Check returns the certificate that a renewal is for. It fails with ErrSignature
// unless the holder of that certificate asks, whom the authority certified, and
// with another error where it has expired or the request is no good.
func (r *Renewal) Check(authority *x509.CertPool, now time.Time) (*x509.Certificate, error) {
	if len(r.Request) > maxRequest {
		return nil, fmt.Errorf("the request for a certificate is larger than %d bytes", maxRequest)
	}
	if err := r.Signature.Check(authority, Reader, append([]byte(renewalPurpose), r.Request...)); err != nil {
		return nil, err
	}
	before, err := x509.ParseCertificate(r.Signature.Certificate)
	if err != nil {
		return nil, err
	}
	if now.After(before.NotAfter) {
		return nil, fmt.Errorf("the certificate of %q expired on %s: only a valid one is renewed", before.Subject.CommonName, before.NotAfter.Format(time.DateOnly))
	}
	key, err := parseRequest(r.Request)
	if err != nil {
		return nil, err
	}
	if key.Equal(before.PublicKey) {
		return nil, errors.New("the request is for the key of the certificate to renew: make another key")
	}
	return before, nil
}

// Renew signs what a renewal that Check accepts asks for. Name and role are those of
// the certificate before; what the request itself says of them does not count. So is
// the lifetime where it is 0.
func Renew(authority Pair, r Renewal, lifetime time.Duration) (certificate []byte, err error) {
	pool, err := Pool(authority.Certificate)
	if err != nil {
		return nil, err
	}
	before, err := r.Check(pool, time.Now())
	if err != nil {
		return nil, err
	}
	key, err := parseRequest(r.Request)
	if err != nil {
		return nil, err
	}
	if lifetime == 0 {
		lifetime = Lifetime(before)
	}
	return sign(&authority, nil, clientTemplate(before.Subject.CommonName, RoleOf(before)), key, lifetime)
}

// CheckAnswer returns an error unless certificate, PEM, is by the authority and just
// what the renewal asks for.
func (r *Renewal) CheckAnswer(authority *x509.CertPool, certificate []byte, now time.Time) error {
	before, err := r.Check(authority, now)
	if err != nil {
		return err
	}
	block, rest := pem.Decode(certificate)
	if block == nil || block.Type != "CERTIFICATE" || len(rest) > 0 {
		return errors.New("the renewed certificate is not PEM")
	}
	renewed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("the renewed certificate: %w", err)
	}
	if err := VerifyClient(authority, renewed, now); err != nil {
		return fmt.Errorf("the renewed certificate: %w", err)
	}
	key, err := parseRequest(r.Request)
	if err != nil {
		return err
	}
	switch {
	case !key.Equal(renewed.PublicKey):
		return errors.New("the renewed certificate is for another key")
	case renewed.Subject.CommonName != before.Subject.CommonName || !slices.Equal(renewed.Subject.Organization, before.Subject.Organization):
		return fmt.Errorf("the renewed certificate is for %s, the one before for %s", renewed.Subject, before.Subject)
	}
	return nil
}

// SameKey reports whether two renewals are of one certificate and for one key, as
// when a client asks again.
func (r *Renewal) SameKey(other Renewal) bool {
	mine, err := parseRequest(r.Request)
	if err != nil {
		return false
	}
	others, err := parseRequest(other.Request)
	return err == nil && mine.Equal(others) && bytes.Equal(r.Signature.Certificate, other.Signature.Certificate)
}
