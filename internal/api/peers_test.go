package api

import (
	"crypto/tls"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	pbconnect "oscine.dev/oscine/internal/api/oscinepb/oscinepbconnect"
	"oscine.dev/oscine/internal/node/access"
	"oscine.dev/oscine/internal/pki"
	"oscine.dev/oscine/internal/update/share"
)

// peer is what asks with the certificate of another node.
func (g *gated) peer() (serial string, client *http.Client) {
	g.t.Helper()
	pair, err := pki.NewNode(g.authority, "edge2", nil)
	if err != nil {
		g.t.Fatal(err)
	}
	own, err := pair.TLS()
	if err != nil {
		g.t.Fatal(err)
	}
	pool, err := pki.Pool(g.authority.Certificate)
	if err != nil {
		g.t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: share.PeerTLS(pool, func() *tls.Certificate { return &own })}
	g.t.Cleanup(transport.CloseIdleConnections)
	return pki.Serial(own.Leaf), &http.Client{Transport: transport}
}

// A node that shares releases gives them to nodes of its cluster, and nothing else. One that
// shares none lets no node in.
func TestPeersGetReleasesAlone(t *testing.T) {
	list, err := access.Open(filepath.Join(t.TempDir(), "access.json"))
	if err != nil {
		t.Fatal(err)
	}
	g := newGatedNode(t, &quietNode{list: list, releases: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.URL.Path)
	})})
	serial, peer := g.peer()
	_, reader := g.client("rita", pki.Reader)
	get := func(c *http.Client, path string) (int, string) {
		t.Helper()
		resp, err := c.Get("https://" + g.address + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	for name, c := range map[string]*http.Client{"a node": peer, "a reader": reader} {
		if code, text := get(c, "/releases/metadata/timestamp.json"); code != http.StatusOK || text != "/metadata/timestamp.json" {
			t.Errorf("%s: got %d %q", name, code, text)
		}
	}
	for path, want := range map[string]int{"/metrics": http.StatusForbidden, "/v2": http.StatusForbidden, "/v2/models": http.StatusForbidden} {
		if code, text := get(peer, path); code != want {
			t.Errorf("a node gets %s: %d %s", path, code, text)
		}
	}
	_, err = pbconnect.NewNodeClient(peer, "https://"+g.address).Info(t.Context(), connect.NewRequest(&pb.InfoRequest{}))
	if connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("a node calls the API: %v", err)
	}
	resp, err := peer.Post("https://"+g.address+pbconnect.NodeInfoProcedure, "application/proto", strings.NewReader("\xff\xff"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden { // not 400: it was not decoded
		t.Errorf("a node posts nonsense: got %s", resp.Status)
	}
	if err := list.Revoke([]access.Revocation{{Serial: serial}}); err != nil {
		t.Fatal(err)
	}
	if code, text := get(peer, "/releases/metadata/timestamp.json"); code != http.StatusUnauthorized || !strings.Contains(text, "revoked") {
		t.Errorf("a node whose certificate was revoked: got %d %s", code, text)
	}
	closed := newGated(t, list)
	_, peer = closed.peer()
	if resp, err := peer.Get("https://" + closed.address + "/releases/metadata/timestamp.json"); err == nil {
		resp.Body.Close()
		t.Errorf("a node that shares nothing: %s", resp.Status)
	}
}

// A node, and anyone else, reads a few files of releases at once.
func TestReadsOfOnePeerAreBounded(t *testing.T) {
	list, err := access.Open(filepath.Join(t.TempDir(), "access.json"))
	if err != nil {
		t.Fatal(err)
	}
	var reading, all sync.WaitGroup
	release := make(chan struct{})
	g := newGatedNode(t, &quietNode{list: list, releases: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		reading.Done()
		<-release
	})})
	_, peer := g.peer()
	_, reader := g.client("rita", pki.Reader)
	get := func(c *http.Client) int {
		resp, err := c.Get(g.url() + "/releases/metadata/timestamp.json")
		if err != nil {
			t.Error(err)
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	reading.Add(maxReadsCaller)
	for range maxReadsCaller {
		all.Go(func() { get(peer) })
	}
	reading.Wait()
	if code := get(peer); code != http.StatusTooManyRequests {
		t.Errorf("read %d of a node: got %d", maxReadsCaller+1, code)
	}
	reading.Add(1)
	all.Go(func() {
		if code := get(reader); code != http.StatusOK {
			t.Errorf("another caller: got %d", code)
		}
	})
	reading.Wait()
	close(release)
	all.Wait()
}
