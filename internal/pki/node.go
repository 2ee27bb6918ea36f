package pki

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"
)

// MaxAttestedLifetime bounds a node's certificate that is signed because the node
// has attested itself: what it attested says less every hour.
const MaxAttestedLifetime = 24 * time.Hour

// NewNode makes a key and signs its server certificate for a node; hosts are
// further DNS names and IP addresses under which clients reach it. For a node
// that makes its own key see SignNode.
func NewNode(authority Pair, name string, hosts []string) (Pair, error) {
	return issue(&authority, nodeTemplate(name, hosts), NodeLifetime)
}

// nodeOrganization is the organization of a node's certificate.
const nodeOrganization = "oscine:node"

func nodeTemplate(name string, hosts []string) *x509.Certificate {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: name, Organization: []string{nodeOrganization}},
		DNSNames:    []string{name},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if !slices.Contains(template.DNSNames, h) {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	return template
}

// SignNode signs a server certificate for the key of a node's request, as
// NewNode does for a new one. proved is the certificate by which the node was
// recognised: a request for another key is refused. Names that the request
// itself asks for do not count.
func SignNode(authority Pair, request []byte, proved *x509.Certificate, name string, hosts []string, lifetime time.Duration) (certificate []byte, err error) {
	key, err := parseRequest(request)
	if err != nil {
		return nil, err
	}
	if !key.Equal(proved.PublicKey) {
		return nil, errors.New("the node asks for a certificate for a key that is not its own: someone is in between")
	}
	return sign(&authority, nil, nodeTemplate(name, hosts), key, lifetime)
}

// RenewNode signs a server certificate for the key of a node's request, with the
// names of the certificate before, which may have expired. It refuses one that the
// authority did not sign for a node, and a request for the same key, whose
// certificate everybody has seen. That the node itself asks is the caller's
// question.
func RenewNode(authority Pair, request []byte, before *x509.Certificate, lifetime time.Duration) (certificate []byte, err error) {
	pool, err := Pool(authority.Certificate)
	if err != nil {
		return nil, err
	}
	if err := VerifyNode(pool, before, before.NotBefore); err != nil {
		return nil, fmt.Errorf("the node's certificate: %w", err)
	}
	key, err := parseRequest(request)
	if err != nil {
		return nil, err
	}
	if key.Equal(before.PublicKey) {
		return nil, errors.New("the node asks for another certificate for the key that it has, instead of a new one")
	}
	hosts := slices.Clone(before.DNSNames)
	for _, ip := range before.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	return sign(&authority, nil, nodeTemplate(before.Subject.CommonName, hosts), key, lifetime)
}

// VerifyNode is VerifyClient for the certificate of a node, under whatever name or address
// it is reached. Nodes show it to each other on both sides of a connection.
func VerifyNode(authority *x509.CertPool, cert *x509.Certificate, now time.Time) error {
	if !IsNode(cert) {
		return fmt.Errorf("the certificate of %q is not a node's", cert.Subject.CommonName)
	}
	return verify(authority, cert, x509.ExtKeyUsageServerAuth, now)
}

// IsNode reports whether a verified certificate is a node's.
func IsNode(cert *x509.Certificate) bool {
	return slices.Contains(cert.Subject.Organization, nodeOrganization) && slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
}

// CheckNode returns the pair of a key and the certificate, PEM, that the authority
// signed for it. It fails unless that is just one, for the node that the certificate
// before is for. Whether it has expired is left to the clients, for the node's own
// clock may be wrong.
func CheckNode(authority *x509.CertPool, before *x509.Certificate, certificate, key []byte) (tls.Certificate, error) {
	block, rest := pem.Decode(certificate)
	if block == nil || block.Type != "CERTIFICATE" || len(rest) > 0 {
		return tls.Certificate{}, errors.New("the node's certificate is not one certificate in PEM")
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("the node's certificate: %w", err)
	}
	if err := VerifyNode(authority, pair.Leaf, pair.Leaf.NotBefore); err != nil {
		return tls.Certificate{}, fmt.Errorf("the node's certificate: %w", err)
	}
	if got, want := pair.Leaf.Subject.CommonName, before.Subject.CommonName; got != want {
		return tls.Certificate{}, fmt.Errorf("the certificate is for a node named %q, this one is %q", got, want)
	}
	return pair, nil
}
