package systemtest

import (
	"crypto/tls"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/machine/machinetest"
	"oscine.dev/oscine/internal/pki"
	"oscine.dev/oscine/internal/serve/engine/enginetest"
	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/repository"
	"oscine.dev/oscine/internal/update/share"
	"oscine.dev/oscine/internal/update/source"
)

// TestUpgradeFromPeer has a machine whose publisher is out of reach download a release from its
// peers, of which one lies, and then give it to another node.
func TestUpgradeFromPeer(t *testing.T) {
	if os.Getenv(longVariable) != "1" {
		t.Skipf("takes minutes: set %s=1, or use make test-upgrade", longVariable)
	}
	m, dir := resumeUpgradable(t)
	n, p := openNode(t, dir, m), openPublisher(t, dir)
	model := filepath.Join(t.TempDir(), "digits.otm")
	if err := os.WriteFile(model, []byte(enginetest.Magic+"add\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.publishWith(machinetest.ImageOf(t, worksVersion), repository.Release{Packs: []string{makeEnginePack(n)}, Models: []string{model}})
	honest := newSitePeer(t, p, dir)
	r := honest.fetch(p.dir, nil)
	gone := httptest.NewServer(nil)
	gone.Close()
	source := forGuests(t, gone.Listener.Addr().String())

	n.reconfigure("peers: [" + lyingPeer(t, dir) + ", " + honest.address + "]\n        share: {size: 128Mi}")
	plan := n.run("upgrade", source, "--dry-run")
	if !strings.Contains(plan, worksVersion) || !strings.Contains(plan, ", from the peer ") {
		t.Errorf("--dry-run: %s", plan)
	}
	n.run("upgrade", source, "--download-only")
	n.awaitOutput("only the download was requested", "upgrade", "status")
	status := n.run("upgrade", "status")
	t.Logf("from a peer:\n%s", status)
	for _, file := range []string{"image: ", "root: ", "made-up.erofs: ", "digits.otm: "} {
		if !fetchedFrom(status, file, "from the peer "+honest.address) {
			t.Errorf("%s did not come from the peer:\n%s", file, status)
		}
	}
	if strings.Contains(status, "from the source") {
		t.Errorf("something came from a publisher that is not there:\n%s", status)
	}
	if events := n.run("events", "--warnings"); !strings.Contains(events, "PeerRefused") {
		t.Errorf("the peer that lied was not found out:\n%s", events)
	}
	// What the machine downloaded it gives to others.
	another := newSitePeer(t, p, dir)
	if got := another.fetch(gone.URL, []string{n.api}); got.Version != r.Version {
		t.Errorf("the machine offers %s", got.Version)
	}
}

// sitePeer is a node of the machine's cluster on this computer, as far as releases go.
type sitePeer struct {
	t       *testing.T
	options update.Options
	address string // as guests reach it
}

func newSitePeer(t *testing.T, p *publisher, dir string) *sitePeer {
	t.Helper()
	cache, err := share.Open(filepath.Join(t.TempDir(), "share"), 256<<20, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	authority, own := clusterAuthority(t, dir), newIdentity(t, dir)
	pool, err := pki.Pool(authority.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	s := &sitePeer{t: t, options: update.Options{Root: []byte(p.root()), State: filepath.Join(t.TempDir(), "trust"), Cache: cache, PeerTLS: share.PeerTLS(pool, func() *tls.Certificate { return &own })}}
	shared := share.NewServer(share.Config{
		Cache:    cache,
		Metadata: func(name string) ([]byte, error) { return source.Metadata(s.options, name) },
		Pinned:   func(update.Digest) (*os.File, error) { return nil, fs.ErrNotExist },
	})
	s.address = servePeer(t, own, http.StripPrefix("/releases", shared))
	return s
}

// fetch fetches all files of the newest release, from the peers if some are named.
func (s *sitePeer) fetch(where string, peers []string) *update.Manifest {
	t := s.t
	t.Helper()
	o := s.options
	o.Peers = peers
	o.Received = func(path, peer string, bytes int64) {
		if t.Logf("%s: %d bytes from %q", path, bytes, peer); peer == "" && len(peers) > 0 {
			t.Errorf("%s did not come from the machine", path)
		}
	}
	from, err := source.Open(where, o)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	all, err := from.Releases(t.Context(), runtime.GOARCH, "cloud")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*update.Content{&all[0].Image, &all[0].Root} {
		slot, err := os.Create(filepath.Join(t.TempDir(), "slot"))
		if err != nil {
			t.Fatal(err)
		}
		defer slot.Close()
		if err := from.Fetch(t.Context(), c, nil, slot, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, pin := range append(slices.Clone(all[0].Packs), all[0].Models...) {
		file, err := o.Cache.Add(pin.SHA256, pin.Size, func(have io.Reader, w io.Writer) error {
			return from.FetchPin(t.Context(), pin, have, w, nil)
		})
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
	}
	return all[0]
}

// fetchedFrom reports whether a line of a status names a file and where it came from.
func fetchedFrom(status, file, from string) bool {
	for line := range strings.Lines(status) {
		if strings.Contains(line, file) && strings.Contains(line, from) {
			return true
		}
	}
	return false
}

// clusterAuthority is the authority of the node whose files are in dir.
func clusterAuthority(t *testing.T, dir string) pki.Pair {
	t.Helper()
	certificate, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	return pki.Pair{Certificate: certificate, Key: key}
}

// newIdentity is a certificate of the cluster for another node.
func newIdentity(t *testing.T, dir string) tls.Certificate {
	t.Helper()
	pair, err := pki.NewNode(clusterAuthority(t, dir), "node2", nil)
	if err != nil {
		t.Fatal(err)
	}
	own, err := pair.TLS()
	if err != nil {
		t.Fatal(err)
	}
	return own
}

// reconfigure changes spec.update of the node's Machine.
func (n *testNode) reconfigure(update string) {
	n.t.Helper()
	text := n.run("config", "show")
	before, _, _ := strings.Cut(text, "    update:\n")
	p := openPublisher(n.t, n.dir)
	file := filepath.Join(n.t.TempDir(), "machine.yaml")
	config := fmt.Sprintf("%s    update:\n        root: '%s'\n        %s\n", before, strings.ReplaceAll(p.root(), "\n", " "), update)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		n.t.Fatal(err)
	}
	n.run("apply", "-f", file)
}

// lyingPeer is a node of the cluster that has every file, and sends zeros.
func lyingPeer(t *testing.T, dir string) string {
	return servePeer(t, newIdentity(t, dir), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/metadata/") {
			http.NotFound(w, r)
			return
		}
		for zeros := make([]byte, 1<<16); r.Method == http.MethodGet; {
			if _, err := w.Write(zeros); err != nil {
				return
			}
		}
	}))
}

// servePeer serves as a node does, on this computer. It returns the address for guests.
func servePeer(t *testing.T, own tls.Certificate, handler http.Handler) string {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(hostOfGuest, port)
}
