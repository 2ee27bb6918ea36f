package share

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"oscine.dev/oscine/internal/update"
)

// A peer does not send the node on to others.
func TestPeerRedirects(t *testing.T) {
	s := newSite(t)
	var asked atomic.Int64
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer inside.Close()
	liar := s.newNode("liar", func(http.Handler) http.Handler { return http.RedirectHandler(inside.URL, http.StatusFound) })
	second := s.newNode("second", nil)
	second.peers = []string{liar.address}
	second.upgrade(second.open(false), nil)
	if n := asked.Load(); n > 0 || !second.trouble(update.ErrUnreachable) {
		t.Errorf("%d requests followed the peer; %v", n, second.troubles)
	}
}
