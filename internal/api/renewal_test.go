package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	pbconnect "oscine.dev/oscine/internal/api/oscinepb/oscinepbconnect"
	"oscine.dev/oscine/internal/node/access"
	"oscine.dev/oscine/internal/pki"
)

// certificateOf is the certificate with which a client of gated calls.
func certificateOf(c *http.Client) tls.Certificate {
	return c.Transport.(*http.Transport).TLSClientConfig.Certificates[0]
}

// A client asks the node for another certificate, the holder of the authority signs
// it elsewhere, and the client takes it: of the same name and role, and nobody
// else's.
func TestRenewalThroughTheNode(t *testing.T) {
	dir := t.TempDir()
	list, err := access.Open(filepath.Join(dir, "revoked.json"))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	n := &quietNode{list: list, renewals: access.OpenRenewals(filepath.Join(dir, "renewals.json"), log)}
	var noted []string
	n.renewals.Noted = func(reason, message string) { noted = append(noted, reason) }
	g := newGatedNode(t, n)
	serial, rita := g.client("rita", pki.Reader)
	_, boss := g.client("boss", pki.Admin)
	hers, admin := pbconnect.NewAccessClient(rita, g.url()), pbconnect.NewAccessClient(boss, g.url())
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	ask := func(api pbconnect.AccessClient, signer *http.Client, key []byte) (string, error) {
		t.Helper()
		r, err := pki.NewRenewal(certificateOf(signer), key)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := api.Renew(t.Context(), connect.NewRequest(&pb.RenewRequest{CertificateRequest: string(r.Request), Signature: r.Signature.Value}))
		if err != nil {
			return "", err
		}
		return resp.Msg.Certificate, nil
	}
	approve := func(api pbconnect.AccessClient, serial, certificate string) error {
		_, err := api.Approve(t.Context(), connect.NewRequest(&pb.ApproveRequest{Serial: serial, Certificate: certificate}))
		return err
	}
	if _, err := ask(admin, rita, key); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("another's certificate: got %v", err)
	}
	for range 2 { // asking again changes nothing
		if got, err := ask(hers, rita, key); got != "" || err != nil {
			t.Fatalf("asked: got %q, %v", got, err)
		}
	}
	if _, err := hers.ListRenewals(t.Context(), connect.NewRequest(&pb.ListRenewalsRequest{})); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("a reader lists the renewals: %v", err)
	}
	pending, err := admin.ListRenewals(t.Context(), connect.NewRequest(&pb.ListRenewalsRequest{}))
	if err != nil || len(pending.Msg.Renewals) != 1 {
		t.Fatalf("got %v, %v", pending, err)
	}
	asked := pending.Msg.Renewals[0]
	renewal := pki.Renewal{Request: []byte(asked.CertificateRequest), Signature: pki.Signature{Certificate: asked.Certificate, Value: asked.Signature}}
	certificate, err := pki.Renew(g.authority, renewal, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	raised, err := pki.NewClient(g.authority, "rita", pki.Admin, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"by a reader":       approve(hers, serial, string(certificate)),
		"another role, key": approve(admin, serial, string(raised.Certificate)),
		"nobody's":          approve(admin, "0123456789abcdef", string(certificate)),
	} {
		if err == nil {
			t.Errorf("approved: %s", name)
		}
	}
	if err := approve(admin, serial, string(certificate)); err != nil {
		t.Fatal(err)
	}
	if got := access.OpenRenewals(filepath.Join(dir, "renewals.json"), log).Pending(time.Now()); len(got) != 0 {
		t.Errorf("pending for the next daemon: %v", got)
	}
	got, err := ask(hers, rita, key)
	if err != nil || got != string(certificate) {
		t.Fatalf("the renewed certificate: got %q, %v", got, err)
	}
	if text := strings.Join(noted, " "); text != "RenewalAsked CertificateRenewed" {
		t.Errorf("noted %s", text)
	}
	pair, err := pki.Pair{Certificate: []byte(got), Key: key}.TLS()
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(g.authority.Certificate)
	fresh := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}, ForceAttemptHTTP2: true}}
	defer fresh.CloseIdleConnections()
	if _, err := pbconnect.NewNodeClient(fresh, g.url()).Info(t.Context(), connect.NewRequest(&pb.InfoRequest{})); err != nil {
		t.Errorf("a call with the new certificate: %v", err)
	}

	// What a revoked certificate asked for is forgotten, and it can ask no more.
	second, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ask(hers, rita, second); got != "" || err != nil {
		t.Fatalf("for another key: got %q, %v", got, err)
	}
	if _, err := admin.Revoke(t.Context(), connect.NewRequest(&pb.RevokeRequest{Certificates: []*pb.Revocation{{Serial: serial}}})); err != nil {
		t.Fatal(err)
	}
	if pending := n.renewals.Pending(time.Now()); len(pending) != 0 {
		t.Errorf("a revoked certificate's renewal is pending: %v", pending)
	}
	if _, err := ask(hers, rita, second); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("a revoked client asks: got %v", err)
	}
	if err := approve(admin, serial, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}))); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("approved for a revoked client: %v", err)
	}
}

// A call that was let in before its certificate was revoked leaves no request behind.
func TestRenewalUnderWayWhenRevoked(t *testing.T) {
	dir := t.TempDir()
	list, err := access.Open(filepath.Join(dir, "revoked.json"))
	if err != nil {
		t.Fatal(err)
	}
	n := &quietNode{list: list, renewals: access.OpenRenewals(filepath.Join(dir, "renewals.json"), slog.New(slog.DiscardHandler))}
	authority, _ := newNodePair(t)
	pool, err := pki.Pool(authority.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := pki.NewClient(authority, "rita", pki.Reader, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	rita, err := pair.TLS()
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	renewal, err := pki.NewRenewal(rita, key)
	if err != nil {
		t.Fatal(err)
	}
	serial := pki.Serial(rita.Leaf)
	if err := list.Revoke([]access.Revocation{{Serial: serial, At: time.Now()}}); err != nil {
		t.Fatal(err)
	}
	s := &accessService{node: n, authority: pool}
	ctx := context.WithValue(t.Context(), callerKey{}, caller{name: "rita", role: pki.Reader, serial: serial, leaf: rita.Leaf})
	_, err = s.Renew(ctx, connect.NewRequest(&pb.RenewRequest{CertificateRequest: string(renewal.Request), Signature: renewal.Signature.Value}))
	if connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("got %v, want that the certificate is revoked", err)
	}
	if pending := n.renewals.Pending(time.Now()); len(pending) != 0 {
		t.Errorf("its request is pending: %v", pending)
	}
}
