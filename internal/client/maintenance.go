package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"oscine.dev/oscine/internal/api/oscinepb/oscinepbconnect"
	"oscine.dev/oscine/internal/pki"
)

// Maintenance is a node that waits for its configuration.
type Maintenance struct {
	oscinepbconnect.MaintenanceClient

	// Certificate is what the node showed: signed by itself, so it proves only
	// that one and the same machine answers each call.
	Certificate *x509.Certificate
}

// Fingerprint is that of the node's certificate, as its console shows it.
func (m *Maintenance) Fingerprint() string { return pki.Fingerprint(m.Certificate.Raw) }

// IsFingerprint reports whether text, in either case and with or without
// colons, is the node's fingerprint.
func (m *Maintenance) IsFingerprint(text string) bool {
	return strings.ToLower(strings.ReplaceAll(text, ":", "")) == m.Fingerprint()
}

// DialMaintenance finds out what listens at address and returns a client that
// accepts no other. own, which may be nil, is the context of the node's owner:
// a node that was configured before recognises its certificate.
func DialMaintenance(ctx context.Context, address string, own *Context) (*Maintenance, error) {
	shown, err := showsCertificate(ctx, address)
	if err != nil {
		return nil, Explain(err, address)
	}
	if !slices.Contains(shown.DNSNames, pki.MaintenanceName) {
		return nil, fmt.Errorf("%s: the node is configured already: it is %s of %s; talk to it with a context of that authority (oscine config contexts)",
			address, nameOf(shown.Subject.CommonName), nameOf(shown.Issuer.CommonName))
	}
	config := &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // nobody has signed it; see VerifyConnection
		VerifyConnection: func(state tls.ConnectionState) error {
			if !state.PeerCertificates[0].Equal(shown) {
				return errors.New("another machine answers there now, or someone is in between")
			}
			return nil
		},
	}
	if own != nil {
		pair, err := tls.X509KeyPair([]byte(own.Certificate), []byte(own.Key))
		if err != nil {
			return nil, fmt.Errorf("context for %s: client certificate: %w", own.Address, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	node := oscinepbconnect.NewMaintenanceClient(newHTTPClient(config), "https://"+address, connect.WithInterceptors(explainErrors(address)))
	return &Maintenance{node, shown}, nil
}

// maxCommonName bounds what a certificate of a stranger puts into a message.
const maxCommonName = 64

func nameOf(commonName string) string {
	if len(commonName) > maxCommonName {
		commonName = commonName[:maxCommonName] + "…"
	}
	return fmt.Sprintf("%q", commonName)
}

// showsCertificate returns the certificate of whatever speaks TLS at address.
func showsCertificate(ctx context.Context, address string) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	dialer := tls.Dialer{NetDialer: &net.Dialer{}, Config: &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, // only to look at it
		NextProtos: []string{"h2", "http/1.1"},
	}}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	session, ok := conn.(*tls.Conn)
	if !ok || len(session.ConnectionState().PeerCertificates) == 0 {
		return nil, errors.New("it shows no certificate")
	}
	return session.ConnectionState().PeerCertificates[0], nil
}
