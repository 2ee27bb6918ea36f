package share

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Metadata, which is read whole, is read for a few at a time. The others wait for a while.
func TestMetadataTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, reading := make(chan struct{}), 0
		s := NewServer(Config{Metadata: func(string) ([]byte, error) {
			reading++ // each is let in while no other runs
			<-release
			return []byte("{}"), nil
		}})
		get := func() *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metadata/timestamp.json", nil))
			return w
		}
		var all sync.WaitGroup
		for range maxMetadata {
			all.Go(func() { get() })
			synctest.Wait()
		}
		if w := get(); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || reading != maxMetadata {
			t.Errorf("beyond %d: got %d while %d read", maxMetadata, w.Code, reading)
		}
		close(release)
		all.Wait()
		if w := get(); w.Code != http.StatusOK || w.Body.String() != "{}" {
			t.Errorf("once the others have ended: got %d %q", w.Code, w.Body)
		}
	})
}

// deadlines records the deadlines that what is written is given.
type deadlines struct {
	http.ResponseWriter
	set []time.Time
}

func (d *deadlines) SetWriteDeadline(at time.Time) error {
	d.set = append(d.set, at)
	return nil
}

// A peer that asks for metadata and takes nothing does not keep its turn.
func TestMetadataHasADeadline(t *testing.T) {
	s := NewServer(Config{Metadata: func(string) ([]byte, error) { return make([]byte, 100<<10), nil }})
	w := &deadlines{ResponseWriter: httptest.NewRecorder()}
	s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metadata/timestamp.json", nil))
	if len(w.set) < 4 || w.set[0].IsZero() || !w.set[len(w.set)-1].IsZero() {
		t.Errorf("deadlines %v, want some for the parts and none after the end", w.set)
	}
}

func TestServerRefusals(t *testing.T) {
	s := newSite(t)
	n, m := s.seeded(nil)
	for path, want := range map[string]int{
		"/metadata/timestamp.json": 200, "/metadata/1.snapshot.json": 404, "/metadata/../metadata/timestamp.json": 200,
		"/metadata/root.json": 404, "/metadata/targets.releases.json": 404, "/metadata/../../etc/passwd": 404, "/metadata/1.root.json/x": 404,
		"/targets/x/" + m.Root.Full.SHA256.String() + ".root": 200, "/targets/" + m.Root.Full.SHA256.String(): 404,
		"/targets/x/" + strings.Repeat("00", 32) + ".root": 404, "/targets/x/zz.root": 404, "/targets/": 404, "/": 404, "/.part": 404,
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(method, "/", nil)
			r.URL.Path = path
			n.server.ServeHTTP(w, r)
			if w.Code != want {
				t.Errorf("%s %s: got %d, want %d: %s", method, path, w.Code, want, w.Body)
			}
		}
	}
	w := httptest.NewRecorder()
	n.server.ServeHTTP(w, httptest.NewRequest(http.MethodPut, "/targets/x", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("PUT: got %d", w.Code)
	}
}
