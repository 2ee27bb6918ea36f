package source

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/update"
)

// besides is a client of a folder with one peer, and the releases there.
func besides(t *testing.T, peer http.HandlerFunc) (*source, []*update.Manifest) {
	t.Helper()
	dir, _, root := publish(t, "1.0.0", "1.1.0")
	server := httptest.NewTLSServer(peer)
	t.Cleanup(server.Close)
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	s := client(t, dir, root, func(o *update.Options) {
		o.Peers, o.PeerTLS = []string{server.Listener.Addr().String()}, &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
	})
	list, err := s.Releases(t.Context(), "amd64", "cloud")
	if err != nil {
		t.Fatal(err)
	}
	return s, list
}

// A peer that sends a few bytes a second is given up, and the file comes from elsewhere.
func TestSlowPeer(t *testing.T) {
	s, list := besides(t, func(w http.ResponseWriter, r *http.Request) {
		for end := time.Now().Add(5 * time.Second); r.Method == http.MethodGet && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if _, err := w.Write([]byte("O")); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
		}
	})
	s.peers[0].web.slow /= 600 // a tenth of a second
	if err := s.Fetch(t.Context(), &list[0].Root, nil, slot(t), nil); err != nil {
		t.Fatal(err)
	}
	if time.Until(s.peers[0].rest) < peerLongRest/2 {
		t.Errorf("the peer rests until %v", s.peers[0].rest)
	}
}

// The full file is waited for at a peer that has it soon. Where that takes too long, the delta of
// the source is fetched, not the full file from there.
func TestBusyPeerHasTheWholeAlone(t *testing.T) {
	var full string
	s, list := besides(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, full) {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		http.NotFound(w, r)
	})
	newer, older := list[0], list[1]
	full = newer.Root.Full.SHA256.String()
	active := slot(t)
	if err := s.Fetch(t.Context(), &older.Root, nil, active, nil); err != nil {
		t.Fatal(err)
	}
	base := &update.Base{ID: older.RootHash, Size: older.Root.Size, Data: active}
	if chosen, _ := s.Choose(t.Context(), &newer.Root, base); chosen.Base != "" {
		t.Fatalf("chose %s", chosen.Path)
	}
	s.waited = busyPatience
	var last update.Progress
	if err := s.Fetch(t.Context(), &newer.Root, base, slot(t), func(p update.Progress) { last = p }); err != nil {
		t.Fatal(err)
	}
	if !last.Delta || last.Fetched > newer.Root.Best(base).Size {
		t.Errorf("got %+v", last)
	}
}
