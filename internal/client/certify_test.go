package client

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/pki"
)

// A server that shows the node's certificate, which is public, and lacks its key has
// shown nothing. What the node showed before stays.
func TestShownOnlyWithItsKey(t *testing.T) {
	authority, err := pki.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	certificate := func() tls.Certificate {
		t.Helper()
		node, err := pki.NewNode(authority, "edge1", nil)
		if err != nil {
			t.Fatal(err)
		}
		own, err := node.TLS()
		if err != nil {
			t.Fatal(err)
		}
		return own
	}
	admin, err := pki.NewClient(authority, "admin", pki.Admin, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	shows := certificate()
	server := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: log.New(io.Discard, "", 0), TLSConfig: &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &shows, nil },
	}}
	go server.ServeTLS(l, "", "")
	defer server.Close()
	c, shown, err := NewForAuthority(&Context{Address: l.Addr().String(), ServerName: "edge1", CA: string(authority.Certificate), Certificate: string(admin.Certificate), Key: string(admin.Key)})
	if err != nil {
		t.Fatal(err)
	}
	ask := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		_, err := c.Node.Info(ctx, connect.NewRequest(&pb.InfoRequest{}))
		return err // also from the node, which knows no calls
	}

	unproved := func(err error) bool { return err != nil && strings.Contains(err.Error(), "invalid signature") }

	own, public := shows, certificate()
	forged := tls.Certificate{Certificate: public.Certificate, Leaf: public.Leaf, PrivateKey: own.PrivateKey}
	shows = forged
	if err := ask(); !unproved(err) || shown.Certificate() != nil {
		t.Errorf("without the key: got %v, and a certificate is shown: %t", err, shown.Certificate() != nil)
	}
	shows = own
	if err := ask(); !shown.Certificate().Equal(own.Leaf) {
		t.Errorf("with the key: got %v, and another certificate is shown", err)
	}
	shows = forged
	c.http.Transport.(*notesShown).RoundTripper.(*http.Transport).CloseIdleConnections()
	if err := ask(); !unproved(err) || !shown.Certificate().Equal(own.Leaf) {
		t.Errorf("without the key again: got %v, and another certificate is shown", err)
	}
}
