package share

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

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
