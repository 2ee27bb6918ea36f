package client

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/pki"
)

// A node's certificate that is not valid by this computer's clock is an error that
// names the clock.
func TestNodeCertificateOutOfTime(t *testing.T) {
	authority, err := pki.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	node, err := pki.NewNode(authority, "edge1", nil)
	if err != nil {
		t.Fatal(err)
	}
	own, err := node.TLS()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := pki.NewClient(authority, "admin", pki.Admin, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler(), TLSConfig: &tls.Config{Certificates: []tls.Certificate{own}}}
	go server.ServeTLS(l, "", "")
	defer server.Close()
	c, err := New(&Context{Address: l.Addr().String(), ServerName: "edge1", CA: string(authority.Certificate), Certificate: string(admin.Certificate), Key: string(admin.Key)})
	if err != nil {
		t.Fatal(err)
	}
	for now, want := range map[time.Time]string{time.Unix(0, 0): "is not valid yet", time.Now().Add(pki.NodeLifetime + 24*time.Hour): "renews it with oscine attest \"edge1\" --renew"} {
		c.http.Transport.(*http.Transport).TLSClientConfig.Time = func() time.Time { return now }
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if _, err := c.Node.Info(ctx, connect.NewRequest(&pb.InfoRequest{})); err == nil || !strings.Contains(err.Error(), "set the clock") || !strings.Contains(err.Error(), want) {
			t.Errorf("at %s: got %v, want %q", now, err, want)
		}
	}
}
