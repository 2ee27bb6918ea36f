package fastpath

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"oscine.dev/oscine/internal/listen"
	"oscine.dev/oscine/internal/unixconn"
)

// rig is a server with the fast path on a Unix or TCP socket.
type rig struct {
	*http.Server
	t      *testing.T
	addr   net.Addr
	active atomic.Int64 // clients that ConnState was told of
	quick  atomic.Int64 // requests that were answered on the fast path
	ended  chan error
}

func serve(t *testing.T, network string, handler http.HandlerFunc) *rig {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = t.TempDir() + "/s"
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, addr: l.Addr(), ended: make(chan error, 1)}
	r.Server = &http.Server{
		ReadHeaderTimeout: time.Second, IdleTimeout: 2 * time.Second, Protocols: new(http.Protocols),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if _, ok := w.(*answer); ok {
				r.quick.Add(1)
			}
			handler(w, q)
		}),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, key{}, listen.Socket(c).LocalAddr().Network())
		},
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateActive {
				r.active.Add(1)
			}
		},
	}
	r.Protocols.SetHTTP1(true)
	r.Protocols.SetUnencryptedHTTP2(true)
	if network == "unix" {
		l = unixconn.Listener{Listener: l}
	}
	go func() { r.ended <- Serve(r.Server, l) }()
	t.Cleanup(func() { r.Server.Close() })
	return r
}

type key struct{}

// echo answers with what it read and a few facts.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("X-Facts", fmt.Sprint(r.Method, " ", r.URL.Path, " ", r.Host, " ", r.Header.Get("X-Own"), " ", r.ContentLength, " ", r.Context().Value(key{})))
	_, _ = w.Write(body)
}

type peer struct {
	net.Conn
	t  *testing.T
	in *bufio.Reader
}

func (r *rig) dial() *peer {
	r.t.Helper()
	c, err := net.Dial(r.addr.Network(), r.addr.String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return &peer{c, r.t, bufio.NewReader(c)}
}

func (p *peer) send(parts ...string) {
	p.t.Helper()
	for i, part := range parts {
		if i > 0 {
			time.Sleep(20 * time.Millisecond)
		}
		if _, err := io.WriteString(p, part); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *peer) receive() (*http.Response, string) {
	p.t.Helper()
	r, err := http.ReadResponse(p.in, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return r, string(body)
}

const post = "POST /v2/models/m/infer HTTP/1.1\r\nHost: node\r\n"

func TestAnswersBesideNetHTTP(t *testing.T) {
	large := strings.Repeat("x", 3*maxBody)
	for _, network := range []string{"tcp", "unix"} {
		r := serve(t, network, echo)
		p := r.dial()
		for _, test := range []struct {
			name  string
			parts []string
			quick bool
			body  string
		}{
			{"plain", []string{post + "Content-Length: 4\r\nX-Own: 1\r\n\r\nbody"}, true, "body"},
			{"again", []string{post + "Content-Length: 4\r\nX-Own: 1\r\n\r\nbody"}, true, "body"},
			{"other header", []string{post + "x-own: 22\r\ncontent-length: 2\r\n\r\nab"}, true, "ab"},
			{"no body", []string{post + "Content-Length: 0\r\n\r\n"}, true, ""},
			{"body later", []string{post + "Content-Length: 4\r\n\r\n", "bo", "dy"}, true, "body"},
			{"another path", []string{"POST /v2/models/m/load HTTP/1.1\r\nHost: node\r\nContent-Length: 1\r\n\r\nb"}, false, "b"},
			{"path to be cleaned", []string{"POST /v2/models/../infer HTTP/1.1\r\nHost: node\r\nContent-Length: 1\r\n\r\nb"}, false, "b"},
			{"another method", []string{"GET /v2/models/m/infer HTTP/1.1\r\nHost: node\r\n\r\n"}, false, ""},
			{"large", []string{post + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(large)) + large}, false, large},
			{"plain after others", []string{post + "Content-Length: 4\r\n\r\nbody"}, true, "body"},
			{"head in parts", []string{post, "Content-Length: 4\r\n\r\nbody"}, false, "body"},
			{"plain after that", []string{post + "Content-Length: 4\r\n\r\nbody"}, false, "body"},
			{"chunked", []string{post + "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"}, false, "body"},
		} {
			before := r.quick.Load()
			p.send(test.parts...)
			response, body := p.receive()
			if body != test.body || response.StatusCode != 200 || response.ContentLength != int64(len(body)) && test.name != "large" {
				t.Errorf("%s, %s: got %d %.50q", network, test.name, response.StatusCode, body)
			}
			if quick := r.quick.Load() > before; quick != test.quick {
				t.Errorf("%s, %s: on the fast path: %v", network, test.name, quick)
			}
			if test.name == "other header" {
				if got, want := response.Header.Get("X-Facts"), "POST /v2/models/m/infer node 22 2 "+network; got != want || response.Header.Get("Date") == "" {
					t.Errorf("got %q, want %q, with a date", got, want)
				}
			}
		}
		if n := r.active.Load(); n < 2 {
			t.Errorf("ConnState was told %d times that the client is active", n)
		}
	}
}

func TestTwoRequestsAtOnce(t *testing.T) {
	p := serve(t, "unix", echo).dial()
	one := post + "Content-Length: 4\r\n\r\n"
	p.send(one + "oneX" + one + "twoX")
	for _, want := range []string{"oneX", "twoX"} {
		if _, got := p.receive(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestUnreadBody(t *testing.T) {
	p := serve(t, "unix", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "not wanted", http.StatusNotFound)
	}).dial()
	for range 2 {
		p.send(post+"Content-Length: 8\r\n\r\nunre", "ad..")
		if r, body := p.receive(); r.StatusCode != 404 || body != "not wanted\n" {
			t.Errorf("got %d %q", r.StatusCode, body)
		}
	}
}

func TestLargeAnswer(t *testing.T) {
	large := bytes.Repeat([]byte("answer"), 1<<20)
	p := serve(t, "unix", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(large)))
		c := http.NewResponseController(w)
		_ = c.SetWriteDeadline(time.Now().Add(10 * time.Second))
		_, _ = w.Write(large[:10])
		_, _ = w.Write(large[10:])
		_ = c.Flush()
	}).dial()
	for range 2 {
		p.send(post + "Content-Length: 0\r\n\r\n")
		time.Sleep(50 * time.Millisecond) // the socket is full
		if _, body := p.receive(); body != string(large) {
			t.Errorf("got %d bytes", len(body))
		}
	}
}

func TestClientLeaves(t *testing.T) {
	for name, wait := range map[string]func(context.Context) bool{
		"Done": func(ctx context.Context) bool {
			select {
			case <-ctx.Done():
				return true
			case <-time.After(10 * time.Second):
				return false
			}
		},
		"Err": func(ctx context.Context) bool {
			for range 1000 {
				if ctx.Err() != nil {
					return true
				}
				time.Sleep(5 * time.Millisecond)
			}
			return false
		},
	} {
		t.Run(name, func(t *testing.T) {
			begun, noticed := make(chan bool), make(chan bool, 1)
			p := serve(t, "unix", func(_ http.ResponseWriter, r *http.Request) {
				if r.Context().Err() != nil {
					t.Error("it has not left yet")
				}
				begun <- true
				noticed <- wait(r.Context())
			}).dial()
			p.send(post + "Content-Length: 0\r\n\r\n")
			<-begun
			p.Close()
			if !<-noticed {
				t.Error("nobody noticed")
			}
		})
	}
}

// A request whose client was watched is followed by others.
func TestWatchedConnectionGoesOn(t *testing.T) {
	p := serve(t, "unix", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
			t.Error("it has not left")
		case <-time.After(5 * time.Millisecond):
		}
		echo(w, r)
	}).dial()
	for range 20 {
		p.send(post + "Content-Length: 2\r\n\r\nhi")
		if _, body := p.receive(); body != "hi" {
			t.Errorf("got %q", body)
		}
	}
}

// A client that does not send the body that it announced has the time that the
// handler gives it, also where somebody waits for the client to leave.
func TestWatchKeepsDeadlineOfBody(t *testing.T) {
	failed := make(chan error, 1)
	p := serve(t, "unix", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_ = r.Context().Done()
		_, err := io.ReadAll(r.Body)
		failed <- err
	}).dial()
	p.send(post + "Content-Length: 4\r\n\r\nbo")
	select {
	case err := <-failed:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the body is waited for without end")
		p.Close()
	}
}

func TestContextEndsWithRequest(t *testing.T) {
	contexts := make(chan context.Context, 2)
	p := serve(t, "unix", func(_ http.ResponseWriter, r *http.Request) { contexts <- r.Context() }).dial()
	p.send(post + "Content-Length: 0\r\n\r\n")
	p.receive()
	p.send(post + "Content-Length: 0\r\n\r\n")
	p.receive()
	last := <-contexts
	select {
	case <-last.Done():
	case <-time.After(10 * time.Second):
		t.Error("the context of an answered request goes on")
	}
	if !errors.Is(last.Err(), context.Canceled) {
		t.Errorf("got %v", last.Err())
	}
}

func TestShutdownAnswersWhatWasAccepted(t *testing.T) {
	begun, goOn := make(chan bool), make(chan bool)
	r := serve(t, "unix", func(w http.ResponseWriter, _ *http.Request) {
		begun <- true
		<-goOn
		_, _ = io.WriteString(w, "whole")
	})
	p := r.dial()
	p.send(post + "Content-Length: 0\r\n\r\n")
	<-begun
	var all sync.WaitGroup
	all.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_ = r.Shutdown(ctx)
		_ = r.Server.Close()
		close(goOn)
	})
	if _, body := p.receive(); body != "whole" {
		t.Errorf("got %q", body)
	}
	if err := <-r.ended; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	if n, err := p.in.ReadByte(); err == nil {
		t.Errorf("after the end came %q", n)
	}
	all.Wait()
}

func TestTimeouts(t *testing.T) {
	r := serve(t, "unix", echo)
	for name, sent := range map[string]string{"idle": "", "slow head": "POST /v2/mod"} {
		p := r.dial()
		p.send(post + "Content-Length: 1\r\n\r\nx")
		p.receive()
		begin := time.Now()
		p.send(sent)
		if _, err := io.ReadAll(p.in); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := time.Since(begin); d < 500*time.Millisecond || d > 10*time.Second {
			t.Errorf("%s: closed after %v", name, d)
		}
	}
}

func TestPanicClosesConnection(t *testing.T) {
	p := serve(t, "unix", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }).dial()
	p.send(post + "Content-Length: 0\r\n\r\n")
	if b, err := io.ReadAll(p.in); len(b) > 0 || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestHTTP2(t *testing.T) {
	r := serve(t, "tcp", echo)
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: &p}}
	defer client.CloseIdleConnections()
	for range 2 {
		response, err := client.Post("http://"+r.addr.String()+"/v2/models/m/infer", "", strings.NewReader("POST /v2/models/m/infer"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if string(body) != "POST /v2/models/m/infer" || err != nil || response.ProtoMajor != 2 {
			t.Errorf("got %q, %v", body, err)
		}
	}
	if r.quick.Load() > 0 {
		t.Error("HTTP/2 was taken for HTTP/1.1")
	}
}

// What is taken for plain here is the same request to net/http.
func FuzzParse(f *testing.F) {
	for _, line := range []string{"Content-Length: 4", "Content-Length: 4\r\nContent-Length: 4", "Content-Length : 4", " X: 1", "Transfer-Encoding: chunked", "A: b\r\nA: c\r\nContent-Length: 0", "Connection: close", "Host: other", "Content-Length: +1", "X: \x00", "Content-Length: 4\nX: 1"} {
		f.Add([]byte(post + line + "\r\n\r\nbody"))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		in := bytes.NewReader(text)
		if n, buffered := requestSize(text), bufio.NewReader(in); n >= 0 {
			if r, err := http.ReadRequest(buffered); err == nil {
				_, _ = io.Copy(io.Discard, r.Body)
				if read := int64(len(text) - in.Len() - buffered.Buffered()); read != min(n, int64(len(text))) {
					t.Errorf("%q has %d bytes, net/http reads %d", text, n, read)
				}
			}
		}
		var h head
		size, ok := h.parse(text)
		if !ok {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", text, err)
		}
		if r.Method != http.MethodPost || r.URL.Path != h.path || r.Host != h.host || r.ContentLength != h.length || fmt.Sprint(r.Header) != fmt.Sprint(h.header) || len(r.TransferEncoding) > 0 || r.Close {
			t.Errorf("%q: got %+v, net/http reads %+v", text, h, r)
		}
		rest, _ := io.ReadAll(r.Body)
		if want := text[size:min(len(text), size+int(min(h.length, int64(len(text)))))]; !bytes.Equal(rest, want) {
			t.Errorf("%q: the body is %q, net/http reads %q", text, want, rest)
		}
		if again, ok := h.parse(text); again != size || !ok {
			t.Errorf("%q is another when it comes again", text)
		}
	})
}
