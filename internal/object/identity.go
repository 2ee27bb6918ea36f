package object

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
)

// checkIdentity reports a key that does not belong to its certificate and a
// certificate that the CA did not sign. Expiry is the node's business: a
// machine without a clock must still read its configuration.
func checkIdentity(c *Checker, at string, api MachineAPI) {
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
	pair, err := tls.X509KeyPair([]byte(api.Certificate), []byte(api.Key))
	if err != nil {
		c.Bad(at+".certificate", "certificate and key do not form a pair: %v", err)
		return
	}
	if err := pair.Leaf.CheckSignatureFrom(root); err != nil {
		c.Bad(at+".certificate", "was not signed by spec.api.ca: %v", err)
	}
}
