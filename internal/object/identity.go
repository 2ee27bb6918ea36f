package object

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
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
	checkJoin(c, at, api)
	if api.Certificate == "" && api.Key == "" {
		return // the node asks for a certificate
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

// Bounds on what a node says when it asks for a certificate.
const (
	maxHosts      = 32
	maxHostLength = 253
	minJoinToken  = 16
	maxJoinToken  = 128
)

func checkJoin(c *Checker, at string, api MachineAPI) {
	if len(api.Hosts) > maxHosts {
		c.Bad(at+".hosts", "has %d entries, at most %d go into a certificate", len(api.Hosts), maxHosts)
	}
	for i, host := range api.Hosts {
		if host == "" || len(host) > maxHostLength || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' }) {
			c.Bad(fmt.Sprintf("%s.hosts[%d]", at, i), "%q is neither a name nor an address", host)
		}
	}
	if n := len(api.JoinToken); n > 0 && (n < minJoinToken || n > maxJoinToken) {
		c.Bad(at+".joinToken", "must have %d to %d characters; oscine config generate makes one", minJoinToken, maxJoinToken)
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
