package api

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	pbconnect "oscine.dev/oscine/internal/api/oscinepb/oscinepbconnect"
	"oscine.dev/oscine/internal/node"
	"oscine.dev/oscine/internal/node/access"
	"oscine.dev/oscine/internal/node/identity"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pki"
)

// quietNode answers Info, and a Watch that never reports anything.
type quietNode struct {
	Node
	identity *identity.Identity
	list     *access.List
	tokens   *access.Tokens
	renewals *access.Renewals
	releases http.Handler
}

func (n *quietNode) Identity() *identity.Identity { return n.identity }
func (n *quietNode) Access() *access.List         { return n.list }
func (n *quietNode) Renewals() *access.Renewals {
	if n.renewals == nil {
		return &access.Renewals{}
	}
	return n.renewals
}
func (n *quietNode) Releases() http.Handler { return n.releases }
func (n *quietNode) Info() node.Info        { return node.Info{Name: "quiet"} }
func (n *quietNode) Inference() ([]string, http.Handler) {
	return []string{"/v2", "/v2/"}, http.NotFoundHandler()
}
func (n *quietNode) Metrics() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		if r.URL.RawQuery == "deaf" { // a handler that does not listen to its context
			for _, err := w.Write([]byte("x")); err == nil; _, err = w.Write([]byte("x")) {
				_ = http.NewResponseController(w).Flush()
				time.Sleep(10 * time.Millisecond)
			}
		}
	})
}
func (n *quietNode) Watch(ctx context.Context, _ object.Kind, _ string, each func(string, object.State) error) error {
	if err := each("set", object.State{Key: object.Key{Kind: object.KindModel, Name: "here"}}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// gated is a server of a quietNode over real TLS.
type gated struct {
	t         *testing.T
	authority pki.Pair
	address   string
}

func newGated(t *testing.T, list *access.List) *gated {
	t.Helper()
	return newGatedNode(t, &quietNode{list: list})
}

func newGatedNode(t *testing.T, n *quietNode) *gated {
	t.Helper()
	authority, err := pki.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	own, err := pki.NewNode(authority, "edge1", []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	n.identity = identityOf(t, authority, own)
	server := NewServer(n, slog.New(slog.DiscardHandler))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, l) }()
	t.Cleanup(func() {
		end()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return &gated{t, authority, l.Addr().String()}
}

// identityOf is the identity of a node with that certificate.
func identityOf(t *testing.T, authority, own pki.Pair) *identity.Identity {
	t.Helper()
	i, err := identity.Open(filepath.Join(t.TempDir(), "identity.json"), object.MachineAPI{
		CA: string(authority.Certificate), Certificate: string(own.Certificate), Key: string(own.Key),
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// client signs a certificate and returns what calls with it.
func (g *gated) client(name string, role pki.Role) (serial string, client *http.Client) {
	g.t.Helper()
	pair, err := pki.NewClient(g.authority, name, role, time.Hour)
	if err != nil {
		g.t.Fatal(err)
	}
	signed, err := pair.TLS()
	if err != nil {
		g.t.Fatal(err)
	}
	pool, err := pki.Pool(g.authority.Certificate)
	if err != nil {
		g.t.Fatal(err)
	}
	client = &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{signed}, MinVersion: tls.VersionTLS13},
		ForceAttemptHTTP2: true,
	}}
	g.t.Cleanup(client.CloseIdleConnections)
	return pki.Serial(signed.Leaf), client
}

func (g *gated) url() string { return "https://" + g.address }

// A revoked client loses its streams, its connections and every later call at
// once, and nobody else does; what was revoked survives the daemon.
func TestRevokedClientIsCutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "revoked.json")
	list, err := access.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	g := newGated(t, list)
	serial, rita := g.client("rita", pki.Reader)
	own, boss := g.client("boss", pki.Admin)
	admin := pbconnect.NewAccessClient(boss, g.url())
	revoke := func(own bool, serials ...string) error {
		req := &pb.RevokeRequest{Own: own}
		for _, s := range serials {
			req.Certificates = append(req.Certificates, &pb.Revocation{Serial: s, Name: "rita"})
		}
		_, err := admin.Revoke(t.Context(), connect.NewRequest(req))
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	watch := func(client *http.Client) *connect.ServerStreamForClient[pb.WatchResponse] {
		t.Helper()
		stream, err := pbconnect.NewObjectsClient(client, g.url()).Watch(ctx, connect.NewRequest(&pb.GetRequest{}))
		if err != nil || !stream.Receive() {
			t.Fatalf("watch: %v, %v", err, stream.Err())
		}
		return stream
	}
	hers, his := watch(rita), watch(boss)
	deaf, err := rita.Get(g.url() + "/metrics?deaf")
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Body.Close()

	for name, err := range map[string]error{
		"one's own": revoke(false, serial, own),
		"no serial": revoke(false, "rita"),
		"by a reader": func() error {
			_, err := pbconnect.NewAccessClient(rita, g.url()).Revoke(ctx, connect.NewRequest(&pb.RevokeRequest{}))
			return err
		}(),
		"restore none": func() error {
			_, err := admin.Restore(ctx, connect.NewRequest(&pb.RestoreRequest{Serials: []string{own}}))
			return err
		}(),
	} {
		if err == nil {
			t.Errorf("%s: not refused", name)
		}
	}
	if len(list.All()) != 0 {
		t.Fatalf("a refused call revoked %v", list.All())
	}

	began := time.Now()
	if err := revoke(false, serial); err != nil {
		t.Fatal(err)
	}
	if hers.Receive() || connect.CodeOf(hers.Err()) != connect.CodeUnauthenticated || !strings.Contains(hers.Err().Error(), "revoked") {
		t.Errorf("her stream ended with %v", hers.Err())
	}
	buf := make([]byte, 1024)
	for err = error(nil); err == nil; _, err = deaf.Body.Read(buf) {
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("she was cut off after %v", took)
	}
	if _, err := pbconnect.NewNodeClient(rita, g.url()).Info(ctx, connect.NewRequest(&pb.InfoRequest{})); connect.CodeOf(err) != connect.CodeUnauthenticated || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("a call after: %v", err)
	}
	for _, path := range []string{"/metrics", "/v2/health/live"} {
		if resp, err := rita.Get(g.url() + path); err != nil || resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s after: %v, %v", path, resp, err)
		} else {
			resp.Body.Close()
		}
	}
	if _, err := pbconnect.NewNodeClient(boss, g.url()).Info(ctx, connect.NewRequest(&pb.InfoRequest{})); err != nil || his.Err() != nil {
		t.Errorf("another client was cut off too: %v, %v", err, his.Err())
	}

	again, err := access.Open(path)
	if err != nil || !again.Revoked(serial) {
		t.Errorf("the next daemon does not know: %v", err)
	}
	listed, err := admin.ListRevoked(ctx, connect.NewRequest(&pb.ListRevokedRequest{}))
	if err != nil || len(listed.Msg.Certificates) != 1 || listed.Msg.Certificates[0].By != "boss" {
		t.Errorf("the list: %v, %v", listed, err)
	}
	if _, err := admin.Restore(ctx, connect.NewRequest(&pb.RestoreRequest{Serials: []string{serial}})); err != nil {
		t.Fatal(err)
	}
	if _, err := pbconnect.NewNodeClient(rita, g.url()).Info(ctx, connect.NewRequest(&pb.InfoRequest{})); err != nil {
		t.Errorf("after she was restored: %v", err)
	}
	if err := revoke(true, own); err != nil {
		t.Errorf("one's own, asked for: %v", err)
	}
	if his.Receive() || errors.Is(his.Err(), context.DeadlineExceeded) {
		t.Errorf("his own stream went on: %v", his.Err())
	}
}
