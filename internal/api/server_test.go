package api

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestServeAnswersWhatCameBefore: the call that switches a node off is answered
// before its daemon goes.
func TestServeAnswersWhatCameBefore(t *testing.T) {
	ctx, shutdown := context.WithCancel(t.Context())
	// It lends its certificate and a client that trusts it.
	pki := httptest.NewUnstartedServer(nil)
	pki.EnableHTTP2 = true
	pki.StartTLS()
	defer pki.Close()
	server := &http.Server{TLSConfig: pki.TLS, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		shutdown()
		time.Sleep(300 * time.Millisecond)
		_, _ = io.WriteString(w, "good night")
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	answer := make(chan string, 1)
	go func() {
		resp, err := pki.Client().Get("https://" + l.Addr().String())
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		answer <- string(text)
	}()
	if err := serve(ctx, server, l); err != nil {
		t.Fatal(err)
	}
	select { // the daemon would end here
	case got := <-answer:
		if got != "good night" {
			t.Errorf("the call was answered %q", got)
		}
	case <-time.After(100 * time.Millisecond):
		t.Error("the server ended before it answered")
	}
}
