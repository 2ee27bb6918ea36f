package api

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"oscine.dev/oscine/internal/pki"
)

// A node whose clock is decades behind lets its clients in, also those whose
// certificate is newer than its own, and nobody else. The clock of a bubble
// begins in the year 2000.
func TestClockBehindEveryCertificate(t *testing.T) {
	authority, own := newNodePair(t)
	another, _ := newNodePair(t)
	pair := func(authority pki.Pair) tls.Certificate {
		t.Helper()
		pair, err := pki.NewClient(authority, "rita", pki.Reader, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := pair.TLS()
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	rita, stranger := pair(authority), pair(another)
	pool, err := pki.Pool(authority.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	who := identityOf(t, authority, own)
	signedAt := rita.Leaf.NotBefore.Add(time.Hour) // the clients' clocks are right
	synctest.Test(t, func(t *testing.T) {
		config := serverTLS(who, false)
		for name, tc := range map[string]struct {
			certificates []tls.Certificate
			want         string
		}{"client": {[]tls.Certificate{rita}, "rita"}, "stranger": {[]tls.Certificate{stranger}, ""}, "nobody": {nil, ""}} {
			client, server := net.Pipe()
			go io.Copy(io.Discard, tls.Client(client, &tls.Config{RootCAs: pool, ServerName: "edge1", Certificates: tc.certificates, Time: func() time.Time { return signedAt }}))
			connection := tls.Server(server, config)
			err := connection.HandshakeContext(t.Context())
			state := connection.ConnectionState()
			if got := callerOf(verified(&state)).name; (err == nil) != (tc.want != "") || err == nil && got != tc.want {
				t.Errorf("%s: got %q, %v, want %q", name, got, err, tc.want)
			}
			client.Close()
			server.Close()
		}
	})
}

// An expired certificate is refused in the handshake, by the node's clock.
func TestExpiredClientIsRefused(t *testing.T) {
	authority, own := newNodePair(t)
	config := serverTLS(identityOf(t, authority, own), false)
	expired, err := pki.NewClient(authority, "rita", pki.Admin, -time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := expired.TLS()
	if err != nil {
		t.Fatal(err)
	}
	pool, err := pki.Pool(authority.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler()}
	go server.Serve(l)
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "edge1", Certificates: []tls.Certificate{signed}}}}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+l.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := client.Do(request); err == nil {
		resp.Body.Close()
		t.Errorf("an expired certificate was let in: %s", resp.Status)
	} else if ctx.Err() != nil {
		t.Error("no answer")
	}
}

func newNodePair(t *testing.T) (authority, node pki.Pair) {
	t.Helper()
	authority, err := pki.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	node, err = pki.NewNode(authority, "edge1", []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	return authority, node
}
