package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
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
	"net"
	"time"
)

// Lifetimes of what Issue signs. A node's certificate outlives a device that
// stays offline for years; a person's is renewed yearly.
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

// NewNode signs a server certificate for a node; hosts are further DNS names
// and IP addresses under which clients reach it.
func NewNode(authority Pair, name string, hosts []string) (Pair, error) {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: name, Organization: []string{"oscine:node"}},
		DNSNames:    []string{name},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if h != name {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	return issue(&authority, template, NodeLifetime)
}

// NewClient signs a client certificate for a person or program.
func NewClient(authority Pair, name string, role Role, lifetime time.Duration) (Pair, error) {
	return issue(&authority, &x509.Certificate{
		Subject:     pkix.Name{CommonName: name, Organization: []string{role.organization()}},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, lifetime)
}

// NewSelfSigned makes the throw-away certificate of a node in maintenance
// mode, which a person can only check by its Fingerprint.
func NewSelfSigned(name string) (Pair, error) {
	return issue(nil, &x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		DNSNames:    []string{name},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, NodeLifetime)
}

func issue(parent *Pair, template *x509.Certificate, lifetime time.Duration) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make a key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return Pair{}, fmt.Errorf("make a serial number: %w", err)
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-backdate)
	template.NotAfter = time.Now().Add(lifetime)
	signer, signerKey := template, any(key)
	if parent != nil {
		pair, err := parent.TLS()
		if err != nil {
			return Pair{}, fmt.Errorf("read the authority: %w", err)
		}
		if !pair.Leaf.IsCA {
			return Pair{}, errors.New("the signing certificate is no authority")
		}
		signer, signerKey = pair.Leaf, pair.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer, key.Public(), signerKey)
	if err != nil {
		return Pair{}, fmt.Errorf("sign the certificate of %s: %w", template.Subject.CommonName, err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("encode a key: %w", err)
	}
	return Pair{
		Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}, nil
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
