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

// newNode makes a certificate of the node edge1.
func newNode(t *testing.T, authority pki.Pair) tls.Certificate {
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

// serve starts a node that knows no calls, and shows on each new connection what shows
// returns. It returns an admin's context for it.
func serve(t *testing.T, authority pki.Pair, shows func() *tls.Certificate) *Context {
	t.Helper()
	admin, err := pki.NewClient(authority, "admin", pki.Admin, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: log.New(io.Discard, "", 0), TLSConfig: &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return shows(), nil },
	}}
	go server.ServeTLS(l, "", "")
	t.Cleanup(func() { server.Close() })
	return &Context{Address: l.Addr().String(), ServerName: "edge1", CA: string(authority.Certificate), Certificate: string(admin.Certificate), Key: string(admin.Key)}
}

// info calls the node. A node of serve answers with an error, too.
func info(t *testing.T, c *Client) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := c.Node.Info(ctx, connect.NewRequest(&pb.InfoRequest{}))
	return err
}

// A node's certificate that is not valid by this computer's clock is an error that
// names the clock.
func TestNodeCertificateOutOfTime(t *testing.T) {
	authority, err := pki.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	own := newNode(t, authority)
	c, err := New(serve(t, authority, func() *tls.Certificate { return &own }))
	if err != nil {
		t.Fatal(err)
	}
	for now, want := range map[time.Time]string{time.Unix(0, 0): "is not valid yet", time.Now().Add(pki.NodeLifetime + 24*time.Hour): "renews it with oscine attest \"edge1\" --renew"} {
		c.http.Transport.(*http.Transport).TLSClientConfig.Time = func() time.Time { return now }
		if err := info(t, c); err == nil || !strings.Contains(err.Error(), "set the clock") || !strings.Contains(err.Error(), want) {
			t.Errorf("at %s: got %v, want %q", now, err, want)
		}
	}
}
