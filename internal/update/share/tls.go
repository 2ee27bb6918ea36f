package share

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"

	"oscine.dev/oscine/internal/pki"
)

// ErrSelf is why a node does not ask a peer that is the node itself: one list of peers does
// for all nodes.
var ErrSelf = errors.New("this peer is the node itself")

// PeerTLS is how a node with the certificate that own returns reaches its peers: both sides show their
// nodes' certificates, whatever addresses those are for.
func PeerTLS(authority *x509.CertPool, own func() *tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Whatever the server says of whom it takes: the certificate is one for servers.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own(), nil },
		InsecureSkipVerify:   true, // VerifyConnection verifies
		VerifyConnection: func(state tls.ConnectionState) error {
			if bytes.Equal(state.PeerCertificates[0].Raw, own().Certificate[0]) {
				return ErrSelf
			}
			return pki.VerifyNode(authority, state.PeerCertificates[0], time.Now())
		},
	}
}
