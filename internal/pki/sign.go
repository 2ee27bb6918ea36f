package pki

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// Signature proves that a client of the cluster stated something.
type Signature struct {
	Certificate []byte `json:"certificate"` // of the client, DER
	Value       []byte `json:"value"`
}

// ErrSignature means that a statement is not signed by someone who may make it.
var ErrSignature = errors.New("not signed by the cluster")

// Sign signs a statement with a client's key. Statements begin with their
// purpose, so that one cannot be taken for another.
func Sign(client tls.Certificate, statement []byte) (Signature, error) {
	signer, ok := client.PrivateKey.(crypto.Signer)
	if !ok || len(client.Certificate) == 0 {
		return Signature{}, errors.New("sign: the client's key cannot sign")
	}
	hash, message := crypto.SHA256, statement
	if _, ok := signer.Public().(ed25519.PublicKey); ok {
		hash = crypto.Hash(0)
	} else {
		sum := sha256.Sum256(statement)
		message = sum[:]
	}
	value, err := signer.Sign(rand.Reader, message, hash)
	if err != nil {
		return Signature{}, fmt.Errorf("sign: %w", err)
	}
	return Signature{client.Certificate[0], value}, nil
}

// Signer is the name in the signer's certificate, "" where there is none. It is not
// proven: Check does that.
func (s *Signature) Signer() string {
	cert, err := x509.ParseCertificate(s.Certificate)
	if err != nil {
		return ""
	}
	return cert.Subject.CommonName
}

// Serial is the serial number of the signer's certificate, "" where there is none.
func (s *Signature) Serial() string {
	cert, err := x509.ParseCertificate(s.Certificate)
	if err != nil {
		return ""
	}
	return Serial(cert)
}

// Check returns an error that wraps ErrSignature unless a client with at least
// that role, whom the authority certified, signed the statement. That the
// certificate has expired since does not matter.
func (s *Signature) Check(authority *x509.CertPool, least Role, statement []byte) error {
	if len(s.Certificate) == 0 {
		return fmt.Errorf("%w: it carries no signature", ErrSignature)
	}
	cert, err := x509.ParseCertificate(s.Certificate)
	if err != nil {
		return fmt.Errorf("%w: the signer's certificate: %v", ErrSignature, err)
	}
	if err := VerifyClient(authority, cert, cert.NotBefore); err != nil {
		return fmt.Errorf("%w: the signer %q is a stranger to this node's authority: %v", ErrSignature, cert.Subject.CommonName, err)
	}
	if role := RoleOf(cert); role < least {
		return fmt.Errorf("%w: the signer %q is no %s", ErrSignature, cert.Subject.CommonName, least)
	}
	algorithm := x509.ECDSAWithSHA256
	switch cert.PublicKeyAlgorithm {
	case x509.Ed25519:
		algorithm = x509.PureEd25519
	case x509.RSA:
		algorithm = x509.SHA256WithRSA
	}
	if err := cert.CheckSignature(algorithm, statement, s.Value); err != nil {
		return fmt.Errorf("%w: the signature of %q is for something else: %v", ErrSignature, cert.Subject.CommonName, err)
	}
	return nil
}
