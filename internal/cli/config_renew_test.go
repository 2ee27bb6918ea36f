package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	pbconnect "oscine.dev/oscine/internal/api/oscinepb/oscinepbconnect"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/pki"
)

// refusing is a node that refuses some certificates, and keeps the renewal that one
// client asks for.
type refusing struct {
	pbconnect.UnimplementedAccessHandler
	revoked []*pb.Revocation

	caller []byte      // certificate of who asks for renewals, DER
	asked  *pb.Renewal // by the caller
	answer string
}

func (r *refusing) Renew(_ context.Context, req *connect.Request[pb.RenewRequest]) (*connect.Response[pb.RenewResponse], error) {
	r.asked = &pb.Renewal{CertificateRequest: req.Msg.CertificateRequest, Certificate: r.caller, Signature: req.Msg.Signature, Asked: timestamppb.New(time.Unix(0, 0))}
	return connect.NewResponse(&pb.RenewResponse{Certificate: r.answer}), nil
}

func (r *refusing) ListRenewals(context.Context, *connect.Request[pb.ListRenewalsRequest]) (*connect.Response[pb.ListRenewalsResponse], error) {
	resp := &pb.ListRenewalsResponse{}
	if r.asked != nil && r.answer == "" {
		resp.Renewals = append(resp.Renewals, r.asked)
	}
	return connect.NewResponse(resp), nil
}

func (r *refusing) Approve(_ context.Context, req *connect.Request[pb.ApproveRequest]) (*connect.Response[pb.ApproveResponse], error) {
	r.answer = req.Msg.Certificate
	return connect.NewResponse(&pb.ApproveResponse{}), nil
}

func (r *refusing) Revoke(_ context.Context, req *connect.Request[pb.RevokeRequest]) (*connect.Response[pb.RevokeResponse], error) {
	for _, c := range req.Msg.Certificates {
		r.revoked = append(r.revoked, &pb.Revocation{Serial: c.Serial, Name: c.Name, By: "admin", Revoked: timestamppb.New(time.Unix(0, 0))})
	}
	return connect.NewResponse(&pb.RevokeResponse{}), nil
}

func (r *refusing) ListRevoked(context.Context, *connect.Request[pb.ListRevokedRequest]) (*connect.Response[pb.ListRevokedResponse], error) {
	return connect.NewResponse(&pb.ListRevokedResponse{Certificates: r.revoked}), nil
}

// The list joins what the authority signed with what the node refuses.
func TestCertificatesAreListed(t *testing.T) {
	n := &fakeNode{access: &refusing{}}
	n.serve(t)
	for _, args := range [][]string{
		{"config", "credentials", "rita", "--role", "operator", "-o", filepath.Join(n.dir, "rita.config")},
		{"config", "revoke", "rita", "F1:23:45:67:89:AB:CD:EF"}, // without --authority: the context knows it
	} {
		if status, _, errOut := n.command(t, args...); status != 0 {
			t.Fatal(errOut)
		}
	}
	_, out, errOut := n.command(t, "config", "certificates")
	for _, want := range []string{`admin +admin +[-0-9]+ +valid\n`, `rita +operator +[-0-9]+ +revoked 1970-01-01T00:00:00Z by admin\n`, `f123456789abcdef +- +- +- +revoked 1970`} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("got %q, %s want %s", out, errOut, want)
		}
	}
	if err := os.Remove(filepath.Join(n.dir, issuedFile)); err != nil {
		t.Fatal(err)
	}
	if _, out, errOut = n.command(t, "config", "certificates"); !strings.Contains(errOut, "only revoked certificates and renewals are listed") || !strings.Contains(out, "rita") {
		t.Errorf("without the list: got %q, %q", out, errOut)
	}
}

// A certificate near its end, or past it, is renewed where the authority is at
// hand, with the same name, role and lifetime, and one line said.
func TestCertificatesAreRenewedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNode{dir: t.TempDir()}
		if status, _, errOut := n.command(t, "config", "generate", "edge1", "--output", n.dir); status != 0 {
			t.Fatal(errOut)
		}
		path := filepath.Join(n.dir, "config")
		read := func() *client.Context {
			t.Helper()
			config, err := client.Load(path)
			if err != nil {
				t.Fatal(err)
			}
			return config.Contexts["edge1"]
		}
		call := func() string {
			t.Helper()
			var said bytes.Buffer
			env := &Env{Err: &said, ConfigPath: path}
			for range 2 { // says it once
				if _, err := env.Client(); err != nil {
					said.WriteString(err.Error() + "\n")
					break
				}
			}
			return said.String()
		}
		first := read()
		time.Sleep(pki.ClientLifetime - 31*day)
		if said := call(); said != "" || *read() != *first {
			t.Errorf("31 days before the end: %s", said)
		}
		time.Sleep(2 * day)
		if said := call(); strings.Count(said, "\n") != 1 || !strings.Contains(said, `the certificate of context "edge1" was to expire on 2000-12-31: renewed until 2001-12-02`) {
			t.Errorf("29 days before the end: got %q", said)
		}
		before, err := leafOf(first)
		if err != nil {
			t.Fatal(err)
		}
		now, err := leafOf(read())
		if err != nil {
			t.Fatal(err)
		}
		if now.Subject.String() != before.Subject.String() || pki.RoleOf(now) != pki.Admin || pki.Lifetime(now) != pki.Lifetime(before) || read().Key == first.Key {
			t.Errorf("got %v for %v, before %v", now.Subject, pki.Lifetime(now), before.Subject)
		}
		if serials, err := issuedTo(n.dir, "admin"); err != nil || len(serials) != 2 || serials[1] != pki.Serial(now) {
			t.Errorf("the list of issued certificates: %v, %v", serials, err)
		}
		time.Sleep(2 * pki.ClientLifetime)
		if said := call(); !strings.Contains(said, "renewed until") || strings.Contains(said, "expires") {
			t.Errorf("after the end: got %q", said)
		}

		// Without the authority the person is told what to do.
		if err := os.Remove(filepath.Join(n.dir, "ca.key")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(pki.ClientLifetime - day)
		if said := call(); !strings.Contains(said, "could not be renewed (ca.crt is in") || !strings.Contains(said, `oscine config credentials "admin" --role admin -o FILE`) {
			t.Errorf("without ca.key: got %q", said)
		}
		time.Sleep(2 * day)
		if said := call(); !strings.Contains(said, "expired on") || !strings.Contains(said, "oscine config merge FILE --force") {
			t.Errorf("expired without ca.key: got %q", said)
		}
	})
}

// Who has no authority asks the node, the holder approves, and the next command takes
// the certificate.
func TestCertificatesAreRenewedThroughTheNode(t *testing.T) {
	node := &refusing{}
	n := &fakeNode{access: node}
	n.serve(t)
	path := filepath.Join(n.dir, "rita.config")
	if status, _, errOut := n.command(t, "config", "credentials", "rita", "-o", path); status != 0 {
		t.Fatal(errOut)
	}
	read := func() *client.Context {
		t.Helper()
		config, err := client.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		return config.Contexts["test"]
	}
	rita := func(args ...string) (int, string, string) {
		t.Helper()
		return n.command(t, append([]string{"--config", path}, args...)...)
	}
	before, err := leafOf(read())
	if err != nil {
		t.Fatal(err)
	}
	node.caller = before.Raw
	if status, out, errOut := rita("config", "renew", "--days", "3"); status == 0 || !strings.Contains(errOut, "--days is for the holder") {
		t.Errorf("got %q, %q", out, errOut)
	}
	const asked = `a renewal is asked for, which the holder of the authority approves with oscine config approve "rita"`
	if status, out, errOut := rita("config", "renew"); status != 0 || !strings.Contains(out, asked) {
		t.Fatalf("got %q, %q", out, errOut)
	}
	key := read().RenewalKey
	if status, _, errOut := rita("config", "certificates"); status != 0 || strings.Count(errOut, asked) != 1 || read().RenewalKey != key {
		t.Errorf("the next command: got %q", errOut)
	}
	if _, out, errOut := n.command(t, "config", "certificates"); !strings.Contains(out, "valid, renewal asked 1970-01-01T00:00:00Z") {
		t.Errorf("got %q, %q", out, errOut)
	}
	if status, _, errOut := n.command(t, "config", "approve", "bob"); status == 0 || !strings.Contains(errOut, `no renewal is asked for by "bob"`) {
		t.Errorf("nobody's: got %q", errOut)
	}
	node.asked.Signature[8] ^= 1
	if status, _, errOut := n.command(t, "config", "approve", "rita"); status == 0 || !strings.Contains(errOut, "is for something else") || node.answer != "" {
		t.Errorf("forged on its way: got %q", errOut)
	}
	node.asked.Signature[8] ^= 1
	if status, out, errOut := n.command(t, "config", "approve", pki.Serial(before)); status != 0 || !regexp.MustCompile(`^[0-9a-f]+ rita with role reader renewed until `).MatchString(out) {
		t.Fatalf("got %q, %q", out, errOut)
	}
	if serials, err := issuedTo(n.dir, "rita"); err != nil || len(serials) != 2 {
		t.Errorf("the list of issued certificates: %v, %v", serials, err)
	}
	good := node.answer
	config, err := client.Load(filepath.Join(n.dir, "config"))
	if err != nil {
		t.Fatal(err)
	}
	node.answer = config.Contexts["test"].Certificate
	if _, _, errOut := rita("config", "certificates"); !strings.Contains(errOut, "could not be renewed (the renewed certificate is for another key)") || read().RenewalKey != key {
		t.Errorf("another's certificate: got %q", errOut)
	}
	node.answer = good
	if _, _, errOut := rita("config", "certificates"); !strings.Contains(errOut, "renewed\n") {
		t.Errorf("got %q", errOut)
	}
	if c := read(); c.Certificate != good || c.Key != key || c.RenewalKey != "" {
		t.Errorf("the context after: %+v", c)
	}
}
