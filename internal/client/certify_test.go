package client

import (
	"crypto/tls"
	"net/http"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/pki"
)

// A server that shows the node's certificate, which is public, and lacks its key has
// shown nothing. What the node showed before stays.
func TestShownOnlyWithItsKey(t *testing.T) {
	authority, err := pki.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	own, public := newNode(t, authority), newNode(t, authority)
	forged := tls.Certificate{Certificate: public.Certificate, Leaf: public.Leaf, PrivateKey: own.PrivateKey}
	shows := forged
	c, shown, err := NewForAuthority(serve(t, authority, func() *tls.Certificate { return &shows }))
	if err != nil {
		t.Fatal(err)
	}
	unproved := func(err error) bool { return err != nil && strings.Contains(err.Error(), "invalid signature") }
	if err := info(t, c); !unproved(err) || shown.Certificate() != nil {
		t.Errorf("without the key: got %v, and a certificate is shown: %t", err, shown.Certificate() != nil)
	}
	shows = own
	if err := info(t, c); !shown.Certificate().Equal(own.Leaf) {
		t.Errorf("with the key: got %v, and another certificate is shown", err)
	}
	shows = forged
	c.http.Transport.(*notesShown).RoundTripper.(*http.Transport).CloseIdleConnections()
	if err := info(t, c); !unproved(err) || !shown.Certificate().Equal(own.Leaf) {
		t.Errorf("without the key again: got %v, and another certificate is shown", err)
	}
}
