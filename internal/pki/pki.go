package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Lifetimes of certificates. A node's outlives a device that stays offline for
// years, unless its owner chooses a shorter one; a person's is renewed yearly.
const (
	AuthorityLifetime = 20 * 365 * 24 * time.Hour
	NodeLifetime      = 10 * 365 * 24 * time.Hour
	ClientLifetime    = 365 * 24 * time.Hour
)

// backdate makes a certificate valid on machines whose clock is a little, or
// after a reset a lot, behind.
const backdate = 24 * time.Hour

// Pair is a certificate and its private key, both PEM.
type Pair struct {
	Certificate []byte
	Key         []byte
}

// TLS returns the pair in the form that crypto/tls uses.
func (p Pair) TLS() (tls.Certificate, error) {
	return tls.X509KeyPair(p.Certificate, p.Key)
}

// NewAuthority makes the self-signed authority of a cluster.
func NewAuthority(cluster string) (Pair, error) {
	return issue(nil, &x509.Certificate{
		Subject:               pkix.Name{CommonName: cluster + " authority", Organization: []string{"oscine"}},
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, AuthorityLifetime)
}

// NewClient signs a client certificate for a person or program.
func NewClient(authority Pair, name string, role Role, lifetime time.Duration) (Pair, error) {
	return issue(&authority, clientTemplate(name, role), lifetime)
}

func clientTemplate(name string, role Role) *x509.Certificate {
	return &x509.Certificate{
		Subject:     pkix.Name{CommonName: name, Organization: []string{role.organization()}},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

// MaintenanceName is the name in the certificate of a node in maintenance mode.
const MaintenanceName = "oscine-maintenance"

// NewMaintenance makes the self-signed certificate of a node in maintenance mode
// for the node's own key. A person can check it only by its Fingerprint.
func NewMaintenance(key []byte) (Pair, error) {
	signer, err := parseKey(key)
	if err != nil {
		return Pair{}, err
	}
	certificate, err := sign(nil, signer, &x509.Certificate{
		Subject:     pkix.Name{CommonName: MaintenanceName},
		DNSNames:    []string{MaintenanceName},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, signer.Public(), NodeLifetime)
	return Pair{certificate, key}, err
}

// issue makes a key and its certificate, signed by parent or, for nil, by itself.
func issue(parent *Pair, template *x509.Certificate, lifetime time.Duration) (Pair, error) {
	keyPEM, err := NewKey()
	if err != nil {
		return Pair{}, err
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return Pair{}, err
	}
	certificate, err := sign(parent, key, template, key.Public(), lifetime)
	return Pair{certificate, keyPEM}, err
}

// sign completes template for a public key and signs it by parent, or by own
// for a nil parent. It returns the certificate as PEM.
func sign(parent *Pair, own crypto.Signer, template *x509.Certificate, public crypto.PublicKey, lifetime time.Duration) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-backdate)
	template.NotAfter = time.Now().Add(lifetime)
	signer, signerKey := template, any(own)
	if parent != nil {
		pair, err := parent.TLS()
		if err != nil {
			return nil, fmt.Errorf("read the authority: %w", err)
		}
		if !pair.Leaf.IsCA {
			return nil, errors.New("the signing certificate is no authority")
		}
		if end := pair.Leaf.NotAfter; template.NotAfter.After(end) { // beyond, nobody would accept it
			template.NotAfter = end
		}
		signer, signerKey = pair.Leaf, pair.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer, public, signerKey)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", template.Subject.CommonName, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// Lifetime is how long a certificate was to be valid when it was signed.
func Lifetime(cert *x509.Certificate) time.Duration {
	return cert.NotAfter.Sub(cert.NotBefore) - backdate
}

// RenewFrom is when a certificate is to be renewed: a month before its end, or
// when a third of a shorter life is left.
func RenewFrom(cert *x509.Certificate) time.Time {
	return cert.NotAfter.Add(-min(30*24*time.Hour, Lifetime(cert)/3))
}

// VerifyClient returns an error unless the authority certified a client, whose
// certificate has not expired. One that begins in the future is accepted: the
// authority dates none ahead, so it is the verifier's clock that is behind.
func VerifyClient(authority *x509.CertPool, cert *x509.Certificate, now time.Time) error {
	return verify(authority, cert, x509.ExtKeyUsageClientAuth, now)
}

func verify(authority *x509.CertPool, cert *x509.Certificate, usage x509.ExtKeyUsage, now time.Time) error {
	if authority == nil { // crypto/x509 would take the system's authorities
		return errors.New("there is no authority")
	}
	if now.Before(cert.NotBefore) {
		now = cert.NotBefore
	}
	_, err := cert.Verify(x509.VerifyOptions{Roots: authority, KeyUsages: []x509.ExtKeyUsage{usage}, CurrentTime: now})
	return err
}

// Fingerprint returns the SHA-256 of a DER certificate in lower-case hex.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// Pool returns a pool of the PEM certificates in text.
func Pool(text []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("no PEM certificate in the CA text")
	}
	return pool, nil
}
