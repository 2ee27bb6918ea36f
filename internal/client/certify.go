package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"oscine.dev/oscine/internal/pki"
)

// Shown is the certificate that a node showed.
type Shown struct {
	last atomic.Pointer[x509.Certificate]
}

// Certificate is that of the connection over which the last answer came, nil before
// the first: the node has proved on it that it holds the key.
func (s *Shown) Certificate() *x509.Certificate { return s.last.Load() }

// NewForAuthority is New for the holder of the authority, who renews the node's
// certificate: one that has expired is accepted too. It proves no more than that its key
// was once the node's.
func NewForAuthority(ctx *Context) (*Client, *Shown, error) {
	ordinary, err := New(ctx)
	if err != nil {
		return nil, nil, err
	}
	authority, err := pki.Pool([]byte(ctx.CA))
	if err != nil {
		return nil, nil, err
	}
	name := ctx.ServerName
	if name == "" {
		if name, _, err = net.SplitHostPort(ctx.Address); err != nil {
			return nil, nil, err
		}
	}
	node := dial(ctx.Address, ordinary.pair, &tls.Config{
		MinVersion:         tls.VersionTLS13,
		ServerName:         name,
		Certificates:       []tls.Certificate{ordinary.pair},
		InsecureSkipVerify: true, // see VerifyConnection
		VerifyConnection: func(state tls.ConnectionState) error {
			leaf, at := state.PeerCertificates[0], time.Now()
			if at.After(leaf.NotAfter) {
				at = leaf.NotAfter
			}
			if err := errors.Join(pki.VerifyNode(authority, leaf, at), leaf.VerifyHostname(name)); err != nil {
				return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
			}
			return nil
		},
	})
	shown := &Shown{}
	node.http.Transport = &notesShown{node.http.Transport, shown}
	return node, shown, nil
}

// notesShown notes the certificate of each answer's connection. VerifyConnection is too
// early for that: the server proves only afterwards that it has the certificate's key.
type notesShown struct {
	http.RoundTripper
	shown *Shown
}

func (n *notesShown) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := n.RoundTripper.RoundTrip(req)
	if err == nil && resp.TLS != nil {
		n.shown.last.Store(resp.TLS.PeerCertificates[0])
	}
	return resp, err
}
