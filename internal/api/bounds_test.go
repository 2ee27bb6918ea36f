package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"oscine.dev/oscine/internal/node/access"
)

func TestCallsOfOneCallerAreBounded(t *testing.T) {
	release := make(chan struct{})
	var started sync.WaitGroup
	h := bounded(maxCalls, maxCallsCaller, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		started.Done()
		<-release
	}))
	call := func(name string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "/oscine.v1.Node/Info", strings.NewReader("{}"))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, caller{name: name})))
		return w
	}
	var all sync.WaitGroup
	started.Add(maxCallsCaller)
	for range maxCallsCaller {
		all.Go(func() { call("greedy") })
	}
	started.Wait()
	w := call("greedy")
	if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
		t.Errorf("call %d: got status %d", maxCallsCaller+1, w.Code)
	}
	started.Add(1)
	all.Go(func() {
		if w := call("modest"); w.Code != http.StatusOK {
			t.Errorf("another caller: got status %d", w.Code)
		}
	})
	started.Wait()
	close(release)
	all.Wait()
	started.Add(1)
	if w := call("greedy"); w.Code != http.StatusOK {
		t.Errorf("once the others have ended: got status %d", w.Code)
	}
}

// TestCallsEndWithTheirCertificate has a call under way when it expires.
func TestCallsEndWithTheirCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leaf := &x509.Certificate{NotAfter: time.Now().Add(time.Hour)}
		r := httptest.NewRequest("POST", "/oscine.v1.Objects/Watch", nil)
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf}}}
		var cause error
		h := newEntrance(&access.List{}).identify(requireRole(0, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			cause = context.Cause(r.Context())
		})))
		h.ServeHTTP(httptest.NewRecorder(), r)
		if cause != errExpired {
			t.Errorf("the call ended with %v, want %v", cause, errExpired)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusUnauthorized {
			t.Errorf("the next call on the connection: got status %d", w.Code)
		}
	})
}

// deadlines records the deadlines that a request's reader is given.
type deadlines struct {
	http.ResponseWriter
	set []time.Time
}

func (d *deadlines) SetReadDeadline(at time.Time) error {
	d.set = append(d.set, at)
	return nil
}

func TestProgressRenewsTheDeadline(t *testing.T) {
	h := bounded(maxCalls, maxCallsCaller, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	for path, want := range map[string]bool{"/oscine.v1.Models/Upload": true, "/oscine.v1.Objects/Apply": true, "/oscine.v1.Workloads/Exec": false} {
		w := &deadlines{ResponseWriter: httptest.NewRecorder()}
		h.ServeHTTP(w, httptest.NewRequest("POST", path, io.MultiReader(strings.NewReader("a"), strings.NewReader("b"))))
		if got := len(w.set) > 0; got != want {
			t.Errorf("%s: deadlines %v, want any: %v", path, w.set, want)
		}
		if n := len(w.set); want && (n < 3 || !w.set[n-1].IsZero()) {
			t.Errorf("%s: deadlines %v, want one for each part and none after the end", path, w.set)
		}
	}
}
