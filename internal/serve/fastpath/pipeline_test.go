package fastpath

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A request that comes while net/http answers pipelined ones waits for its turn.
func TestPipelinedRequestsStayInOrder(t *testing.T) {
	const one = post + "Content-Length: 1\r\n\r\n"
	for _, first := range []string{one + "A" + one + "B", one + "A" + one, post + "Transfer-Encoding: chunked\r\n\r\n1\r\nA\r\n0\r\n\r\n" + one + "B"} {
		var under atomic.Int64
		begun, goOn := make(chan string, 3), make(chan bool)
		p := serve(t, "unix", func(w http.ResponseWriter, r *http.Request) {
			if under.Add(1) > 1 {
				t.Error("two requests of a connection are answered at once")
			}
			defer under.Add(-1)
			body, _ := io.ReadAll(r.Body)
			begun <- string(body)
			if string(body) == "B" {
				<-goOn
			}
			_, _ = w.Write(body)
		}).dial()
		p.send(first)
		if _, got := p.receive(); got != "A" {
			t.Errorf("got %q, want A", got)
		}
		<-begun
		if !strings.HasSuffix(first, "B") {
			p.send("B")
		}
		if got := <-begun; got != "B" {
			t.Errorf("%q is answered, want B", got)
		}
		time.Sleep(10 * time.Millisecond) // net/http watches the client
		p.send(one + "C")
		select {
		case got := <-begun:
			t.Errorf("%q is answered beside B", got)
		case <-time.After(100 * time.Millisecond):
		}
		close(goOn)
		for _, want := range []string{"B", "C"} {
			if _, got := p.receive(); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	}
}

// A request that comes while net/http answers one that it got alone is left for the
// fast path. A client that leaves then is noticed.
func TestNextRequestWhileNetHTTPAnswers(t *testing.T) {
	const other = "POST /v2/other HTTP/1.1\r\nHost: node\r\nContent-Length: 2\r\n\r\n"
	begun, goOn := make(chan context.Context, 2), make(chan bool)
	r := serve(t, "unix", func(w http.ResponseWriter, r *http.Request) {
		echo(w, r)
		if r.URL.Path == "/v2/other" {
			begun <- r.Context()
			<-goOn
		}
	})
	p := r.dial()
	p.send(other, "ab"+post+"Content-Length: 1\r\n\r\nC")
	<-begun
	time.Sleep(10 * time.Millisecond)
	if r.quick.Load() > 0 {
		t.Error("two requests of a connection are answered at once")
	}
	goOn <- true
	for _, want := range []string{"ab", "C"} {
		if _, got := p.receive(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if r.quick.Load() != 1 {
		t.Error("the next request was not answered on the fast path")
	}
	p.send(other + "ab")
	ctx := <-begun
	p.Close()
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
		t.Error("nobody noticed that the client left")
	}
	close(goOn)
}
