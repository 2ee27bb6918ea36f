package share

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"oscine.dev/oscine/internal/pki"
	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/repository"
	"oscine.dev/oscine/internal/update/repository/repositorytest"
	"oscine.dev/oscine/internal/update/source"
)

// site is a publisher far away and some nodes near each other.
type site struct {
	t         *testing.T
	authority pki.Pair
	pool      *x509.CertPool
	root      []byte // trusted
	far       *httptest.Server
	sent      atomic.Int64 // bytes of targets that the publisher sent
	pack      []byte       // that the newest release pins
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, pack: repositorytest.Noise(7, 1<<20)}
	var err error
	if s.authority, err = pki.NewAuthority("test"); err != nil {
		t.Fatal(err)
	}
	if s.pool, err = pki.Pool(s.authority.Certificate); err != nil {
		t.Fatal(err)
	}
	dir, r, root := repositorytest.New(t, repository.Options{}, "1.0.0")
	file := filepath.Join(t.TempDir(), "engine.pack")
	if err := os.WriteFile(file, s.pack, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = r.Create(t.Context(), repository.Release{Parts: repositorytest.Parts(t, "1.1.0", repositorytest.Kernel, repositorytest.Files("1.1.0")), Packs: []string{file}, Deltas: 3})
	if err != nil {
		t.Fatal(err)
	}
	s.root = root
	files := http.FileServer(http.Dir(dir))
	s.far = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/targets/") && !strings.HasSuffix(r.URL.Path, ".json") {
			w = &counter{w, &s.sent}
		}
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(s.far.Close)
	return s
}

type counter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p))) // before they are read
	return c.ResponseWriter.Write(p)
}

// node is one that may share, and asks its peers.
type node struct {
	*site
	own     tls.Certificate
	state   string
	cache   *Cache
	server  *Server
	address string // of what it shares

	mu       sync.Mutex
	peers    []string
	troubles []error
	received map[string]int64 // bytes by peer
}

// newNode makes a node that shares, by way of around if that is not nil.
func (s *site) newNode(name string, around func(http.Handler) http.Handler) *node {
	s.t.Helper()
	pair, err := pki.NewNode(s.authority, name, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	n := &node{site: s, state: filepath.Join(s.t.TempDir(), "trust"), received: map[string]int64{}}
	if n.own, err = pair.TLS(); err != nil {
		s.t.Fatal(err)
	}
	if n.cache, err = Open(filepath.Join(s.t.TempDir(), "share"), 64<<20, func() error { return nil }); err != nil {
		s.t.Fatal(err)
	}
	n.server = NewServer(Config{
		Cache:    n.cache,
		Metadata: func(name string) ([]byte, error) { return source.Metadata(n.options(), name) },
		Pinned:   func(update.Digest) (*os.File, error) { return nil, fs.ErrNotExist },
	})
	handler := http.StripPrefix("/releases", n.server)
	if around != nil {
		handler = around(handler)
	}
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{n.own}, ClientAuth: tls.RequireAnyClientCert,
		VerifyConnection: func(state tls.ConnectionState) error {
			return pki.VerifyNode(s.pool, state.PeerCertificates[0], time.Now())
		},
	}
	server.Config.ErrorLog = nil
	server.StartTLS()
	s.t.Cleanup(server.Close)
	n.address = server.Listener.Addr().String()
	return n
}

func (n *node) options() update.Options {
	return update.Options{Root: n.root, State: n.state}
}

// open opens the publisher's folder with the node's peers; sharing keeps what is fetched.
func (n *node) open(sharing bool) update.Source {
	n.t.Helper()
	o := n.options()
	o.Peers, o.PeerTLS = n.peers, PeerTLS(n.pool, func() *tls.Certificate { return &n.own })
	o.Trouble = func(_ string, err error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.troubles = append(n.troubles, err)
	}
	o.Received = func(_, peer string, bytes int64) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.received[peer] += bytes
	}
	if sharing {
		o.Cache = n.cache
	}
	s, err := source.Open(n.far.URL, o)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { s.Close() })
	return s
}

// trouble reports whether the node heard of such an error.
func (n *node) trouble(kind error) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, err := range n.troubles {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// upgrade fetches all files of the newest release.
func (n *node) upgrade(s update.Source, base *update.Base) *update.Manifest {
	n.t.Helper()
	list, err := s.Releases(n.t.Context(), "amd64", "cloud")
	if err != nil {
		n.t.Fatal(err)
	}
	m := list[0]
	for _, c := range []*update.Content{&m.Image, &m.Root} {
		slot, err := os.Create(filepath.Join(n.t.TempDir(), "slot"))
		if err != nil {
			n.t.Fatal(err)
		}
		defer slot.Close()
		if err := s.Fetch(n.t.Context(), c, base, slot, func(update.Progress) {}); err != nil {
			n.t.Fatal(err)
		}
	}
	var got bytes.Buffer
	for { // as the stores do
		got.Reset()
		err := s.FetchPin(n.t.Context(), m.Packs[0], strings.NewReader(""), &got, nil)
		if errors.Is(err, update.ErrPeer) {
			continue
		}
		if err != nil || !bytes.Equal(got.Bytes(), n.pack) {
			n.t.Fatalf("the pack: %v, %d bytes", err, got.Len())
		}
		return m
	}
}

// seeded is a node that has what it fetched from the publisher, its pack too.
func (s *site) seeded(around func(http.Handler) http.Handler) (n *node, m *update.Manifest) {
	s.t.Helper()
	n = s.newNode("first", around)
	m = n.upgrade(n.open(true), nil)
	pack := m.Packs[0]
	file, err := n.cache.Add(pack.SHA256, pack.Size, func(_ io.Reader, w io.Writer) error {
		_, err := w.Write(s.pack)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	file.Close()
	return n, m
}

// A node takes all files from a peer that has them, and from the publisher the metadata alone.
func TestPeer(t *testing.T) {
	s := newSite(t)
	first, m := s.seeded(nil)
	want := m.Image.Full.Size + m.Root.Full.Size + m.Packs[0].Size
	if got := s.sent.Load(); got != want {
		t.Errorf("the first node got %d bytes from the publisher, want %d", got, want)
	}
	for _, sharing := range []bool{true, false} {
		s.sent.Store(0)
		second := s.newNode("second", nil)
		second.peers = []string{first.address}
		second.upgrade(second.open(sharing), nil)
		if got, sent := second.received[first.address], s.sent.Load(); got != want || sent != 0 || len(second.troubles) > 0 {
			t.Errorf("sharing %t: %d bytes from the peer, want %d, and %d from the publisher; %v", sharing, got, want, sent, second.troubles)
		}
	}
	for end := time.Now().Add(10 * time.Second); first.server.Sent() != 2*want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) { // what was read may not be counted yet
			t.Fatalf("the first node sent %d bytes, want %d", first.server.Sent(), 2*want)
		}
	}
}

// While the publisher cannot be reached a peer stands in for it, metadata included. Metadata
// that has expired does not count, wherever it comes from.
func TestPeerWithoutSource(t *testing.T) {
	s := newSite(t)
	first, _ := s.seeded(nil)
	s.far.Close()
	second, third := s.newNode("second", nil), s.newNode("third", nil)
	second.peers, third.peers = []string{first.address}, []string{second.address}
	second.upgrade(second.open(true), nil)
	list, err := third.open(false).Releases(t.Context(), "amd64", "cloud")
	if err != nil || len(list) != 2 {
		t.Errorf("from a node that had it from a peer: %d releases, %v", len(list), err)
	}
	late := third.options()
	late.Peers, late.PeerTLS = []string{first.address}, PeerTLS(s.pool, func() *tls.Certificate { return &third.own })
	late.Now = func() time.Time { return time.Now().Add(30 * 24 * time.Hour) }
	o, err := source.Open(s.far.URL, late)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	_, err = o.Releases(t.Context(), "amd64", "cloud")
	if !errors.Is(err, update.ErrUnreachable) || !strings.Contains(err.Error(), "peer "+first.address) || !strings.Contains(err.Error(), "its timestamp has expired") {
		t.Errorf("expired: got %v", err)
	}
	if _, err := third.open(false).Releases(t.Context(), "arm64", "metal"); err != nil {
		t.Errorf("for another machine: got %v", err)
	}
}

// What a peer sends counts only if it is what was signed.
func TestLyingPeer(t *testing.T) {
	flip := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(&flipper{ResponseWriter: w, at: 3000}, r)
		})
	}
	short := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/metadata/") || r.Method == http.MethodHead {
				h.ServeHTTP(w, r)
				return
			}
			_, _ = w.Write([]byte("short"))
		})
	}
	long := func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for r.Method == http.MethodGet {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		})
	}
	s := newSite(t)
	honest, m := s.seeded(nil)
	want := m.Image.Full.Size + m.Root.Full.Size + m.Packs[0].Size
	for name, around := range map[string]func(http.Handler) http.Handler{"flipped": flip, "short": short, "endless": long} {
		liar := s.newNode("liar", around)
		liar.upgrade(liar.open(true), nil)
		for _, sharing := range []bool{true, false} {
			s.sent.Store(0)
			second := s.newNode("second", nil)
			second.peers = []string{liar.address}
			second.upgrade(second.open(sharing), nil)
			if sent := s.sent.Load(); sent < want || sent > want+4096 || !second.trouble(update.ErrPeer) {
				t.Errorf("%s, sharing %t: %d bytes from the publisher, want %d; %v", name, sharing, sent, want, second.troubles)
			}
			s.sent.Store(0)
			third := s.newNode("third", nil)
			third.peers = []string{liar.address, honest.address}
			third.upgrade(third.open(sharing), nil)
			if sent := s.sent.Load(); sent != 0 || third.received[honest.address] < want {
				t.Errorf("%s, sharing %t: with an honest peer too, %d bytes from the publisher; %v", name, sharing, sent, third.received)
			}
		}
	}
}

// flipper changes a byte of each answer.
type flipper struct {
	http.ResponseWriter
	at int
}

func (f *flipper) Write(p []byte) (int, error) {
	p = bytes.Clone(p)
	if f.at >= 0 && f.at < len(p) {
		p[f.at] ^= 1
	}
	f.at -= len(p)
	return f.ResponseWriter.Write(p)
}

// A peer that restarts in the middle of a file costs nothing of what it sent.
func TestPeerEndsInTheMiddle(t *testing.T) {
	s := newSite(t)
	var left atomic.Int64
	left.Store(1 << 40)
	first, m := s.seeded(func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if left.Load() <= 0 {
				panic(http.ErrAbortHandler)
			}
			h.ServeHTTP(&cutter{w, &left}, r)
		})
	})
	for _, sharing := range []bool{true, false} {
		left.Store(m.Root.Full.Size / 2)
		s.sent.Store(0)
		second := s.newNode("second", nil)
		second.peers = []string{first.address}
		second.upgrade(second.open(sharing), nil)
		all := m.Image.Full.Size + m.Root.Full.Size + m.Packs[0].Size
		near, far := second.received[first.address], second.received[""]
		if near+far < all || near+far > all+4096 || near < m.Root.Full.Size/4 || !second.trouble(update.ErrUnreachable) {
			t.Errorf("sharing %t: %d bytes from the peer and %d from the publisher, want %d; %v", sharing, near, far, all, second.troubles)
		}
	}
}

// cutter ends the connection after some bytes of all answers together.
type cutter struct {
	http.ResponseWriter
	left *atomic.Int64
}

func (c *cutter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p[:min(int64(len(p)), max(c.left.Load(), 0))])
	if c.left.Add(-int64(len(p))) <= 0 {
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

// A delta that a peer lacks is not fetched from far away where the peer has the whole.
func TestPeerHasTheWholeAlone(t *testing.T) {
	s := newSite(t)
	first, m := s.seeded(nil)
	second := s.newNode("second", nil)
	far := second.open(false)
	list, err := far.Releases(t.Context(), "amd64", "cloud")
	if err != nil {
		t.Fatal(err)
	}
	old, err := os.Create(filepath.Join(t.TempDir(), "old"))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := far.Fetch(t.Context(), &list[1].Root, nil, old, nil); err != nil {
		t.Fatal(err)
	}
	base := &update.Base{ID: list[1].RootHash, Size: list[1].Root.Size, Data: old}
	if got, peer := far.Choose(t.Context(), &m.Root, base); got.Base == "" || peer != "" {
		t.Errorf("without peers: got %s from %q", got.Path, peer)
	}
	second.peers = []string{first.address}
	near := second.open(true)
	if got, peer := near.Choose(t.Context(), &m.Root, base); got.Base != "" || peer != first.address {
		t.Errorf("with a peer: got %s from %q", got.Path, peer)
	}
	// Once a node has used the delta, others get that.
	third := s.newNode("third", nil)
	third.upgrade(third.open(true), base)
	second.peers = []string{first.address, third.address}
	near = second.open(true)
	if got, peer := near.Choose(t.Context(), &m.Root, base); got.Base == "" || peer != third.address {
		t.Errorf("with a peer that has it: got %s from %q", got.Path, peer)
	}
	second.upgrade(near, base)
	// One that has everything, as it says, does not make the whole come from far away.
	liar := s.newNode("liar", func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("x")) })
	})
	second.peers = []string{liar.address}
	near = second.open(false)
	if _, peer := near.Choose(t.Context(), &m.Root, base); peer != liar.address {
		t.Errorf("the root comes from %q", peer)
	}
	s.sent.Store(0)
	second.upgrade(near, base)
	if got, want := s.sent.Load(), m.Image.Full.Size+m.Root.Best(base).Size+m.Packs[0].Size; got != want {
		t.Errorf("beside a peer that lies: %d bytes from the publisher, want %d", got, want)
	}
}

// Two nodes that name each other, and themselves, share what one of them fetches at the time.
func TestPeersOfEachOther(t *testing.T) {
	s := newSite(t)
	first, second := s.newNode("first", nil), s.newNode("second", nil)
	first.peers = []string{first.address, second.address}
	second.peers = first.peers
	m := first.upgrade(first.open(true), nil)
	if !first.trouble(ErrSelf) {
		t.Errorf("the node asked itself: %v", first.troubles)
	}
	far := s.sent.Load()
	second.upgrade(second.open(true), nil)
	if got := s.sent.Load() - far; got != m.Packs[0].Size { // which the first has in no store here
		t.Errorf("the second node got %d bytes from the publisher", got)
	}
	// The second comes while the first is still downloading: it waits.
	third, fourth := s.newNode("third", nil), s.newNode("fourth", nil)
	third.peers = []string{fourth.address}
	fourth.peers = []string{third.address}
	on := third.cache.Fetching(m.Image.Full.SHA256, io.Discard)
	if _, err := on.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(3*time.Second, func() {
		third.upgrade(third.open(true), nil)
		on.Close()
	})
	s.sent.Store(0)
	fourth.upgrade(fourth.open(true), nil)
	if !fourth.trouble(update.ErrBusy) || fourth.received[third.address] < m.Image.Full.Size {
		t.Errorf("the fourth node did not wait: %v, %v", fourth.troubles, fourth.received)
	}
}

// Nodes of other clusters, and clients, are no peers; neither is one that is not there.
func TestStrangers(t *testing.T) {
	s, other := newSite(t), newSite(t)
	stranger, _ := other.seeded(nil)
	gone := httptest.NewServer(nil)
	gone.Close()
	n := s.newNode("first", nil)
	n.peers = []string{stranger.address, gone.Listener.Addr().String()}
	n.upgrade(n.open(false), nil)
	if n.received[""] != s.sent.Load() || len(n.troubles) != 2 || stranger.server.Sent() > 0 {
		t.Errorf("got %v with %v", n.received, n.troubles)
	}
}
