package object

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// maxPEM bounds a certificate or key: checking one takes time with the cube of
// its length.
const maxPEM = 16 << 10

// checkIdentity reports a key that does not belong to its certificate and a
// certificate that the CA did not sign. Expiry is the node's business: a
// machine without a clock must still read its configuration.
func checkIdentity(c *Checker, at string, api MachineAPI) {
	for name, text := range map[string]string{"ca": api.CA, "certificate": api.Certificate, "key": api.Key} {
		if len(text) > maxPEM {
			c.Bad(at+"."+name, "is longer than %d bytes", maxPEM)
			return
		}
	}
	ca, _ := pem.Decode([]byte(api.CA))
	if ca == nil || ca.Type != "CERTIFICATE" {
		c.Bad(at+".ca", "must be a PEM certificate; oscine config generate makes it")
		return
	}
	root, err := x509.ParseCertificate(ca.Bytes)
	if err != nil {
		c.Bad(at+".ca", "is not a certificate: %v", err)
		return
	}
	leaf, err := parseLeaf(api)
	if err != nil {
		c.Bad(at+".certificate", "%v", err)
		return
	}
	if err := leaf.CheckSignatureFrom(root); err != nil {
		c.Bad(at+".certificate", "was not signed by spec.api.ca: %v", err)
	}
}

// parseLeaf reads the node's certificate, and with a key checks that it is its.
func parseLeaf(api MachineAPI) (*x509.Certificate, error) {
	if api.Key != "" {
		pair, err := tls.X509KeyPair([]byte(api.Certificate), []byte(api.Key))
		if err != nil {
			return nil, fmt.Errorf("certificate and key do not form a pair: %w", err)
		}
		return pair.Leaf, nil
	}
	block, _ := pem.Decode([]byte(api.Certificate))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("must be a PEM certificate; oscine config apply gets one from the node's authority")
	}
	return x509.ParseCertificate(block.Bytes)
}
