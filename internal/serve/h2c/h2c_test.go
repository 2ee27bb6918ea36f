package h2c

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "x/y")
	w.Header().Set("X-Facts", fmt.Sprint(r.Method, " ", r.URL, " ", r.Host, " ", r.Proto, " ", r.ContentLength, " ", r.Header["X-Own"], " ", r.Header.Get("Cookie")))
	if r.URL.Path == "/trailers" {
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	}
	if r.URL.Path == "/missing" {
		w.WriteHeader(http.StatusNotFound)
	}
	_, _ = w.Write(body)
}

// Answers are those of net/http's own server.
func TestAnswersBesideNetHTTP(t *testing.T) {
	ours := serve(t, echo)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	theirs := &http.Server{Handler: http.HandlerFunc(echo), Protocols: new(http.Protocols)}
	theirs.Protocols.SetUnencryptedHTTP2(true)
	go theirs.Serve(l)
	defer theirs.Close()
	large := bytes.Repeat([]byte("0123456789abcdef"), 200<<10)
	client := ours.client()
	ask := func(addr, method, path string, body io.Reader) string {
		r, err := http.NewRequest(method, "http://"+addr+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "node"
		r.Header["X-Own"] = []string{"a", "b"}
		r.AddCookie(&http.Cookie{Name: "a", Value: "1"})
		r.AddCookie(&http.Cookie{Name: "b", Value: "2"})
		answer, err := client.Do(r)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		defer answer.Body.Close()
		got, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		if answer.Header.Get("Date") == "" {
			t.Errorf("%s %s: has no date", method, path)
		}
		answer.Header.Del("Date")
		if len(got) > 100 {
			got = fmt.Appendf(nil, "%d bytes, the same: %v", len(got), bytes.Equal(got, large))
		}
		return fmt.Sprint(answer.StatusCode, answer.Header, answer.ContentLength, answer.Trailer, string(got))
	}
	for _, c := range []struct {
		method, path string
		body         func() io.Reader
	}{
		{"GET", "/a/b%20c?x=1", func() io.Reader { return nil }},
		{"HEAD", "/", func() io.Reader { return nil }},
		{"POST", "/", func() io.Reader { return strings.NewReader("hello") }},
		{"POST", "/", func() io.Reader { return io.MultiReader(strings.NewReader("of unknown length")) }},
		{"POST", "/", func() io.Reader { return bytes.NewReader(large) }},
		{"POST", "/trailers", func() io.Reader { return bytes.NewReader(large) }},
		{"POST", "/trailers", func() io.Reader { return strings.NewReader("hello") }},
		{"PUT", "/missing", func() io.Reader { return strings.NewReader("") }},
	} {
		for range 2 { // with what the connection remembers of the last head
			if got, want := ask(ours.addr, c.method, c.path, c.body()), ask(l.Addr().String(), c.method, c.path, c.body()); got != want {
				t.Errorf("%s %s:\ngot  %s\nwant %s", c.method, c.path, got, want)
			}
		}
	}
}

// A handler that alters the header of its request alters no later one's.
func TestHeaderIsTheHandlers(t *testing.T) {
	r := serve(t, func(w http.ResponseWriter, q *http.Request) {
		io.WriteString(w, q.Header.Get("User-Agent"))
		q.Header.Set("User-Agent", "altered")
	})
	client := r.client()
	for range 2 {
		answer, err := client.Get("http://" + r.addr)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || string(got) == "altered" {
			t.Errorf("the handler sees %q, %v", got, err)
		}
	}
}

// Many requests of one connection are answered at once, each with its own answer.
func TestManyAtOnce(t *testing.T) {
	var at atomic.Int64
	all := make(chan struct{})
	const n = 100
	r := serve(t, func(w http.ResponseWriter, q *http.Request) {
		if at.Add(1) == n {
			close(all)
		}
		<-all
		echo(w, q)
	})
	client := r.client()
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			want := strings.Repeat(fmt.Sprint(i, " "), 1+i*100)
			answer, err := client.Post("http://"+r.addr, "x/y", strings.NewReader(want))
			if err != nil {
				t.Error(err)
				return
			}
			defer answer.Body.Close()
			if got, err := io.ReadAll(answer.Body); err != nil || string(got) != want {
				t.Errorf("request %d: got %d bytes of %d, %v", i, len(got), len(want), err)
			}
		})
	}
	group.Wait()
}

// What breaks the protocol ends the stream or the connection, and nothing else.
func TestBreaches(t *testing.T) {
	r := serve(t, echo)
	window := func(id uint32) func(*raw) {
		return func(c *raw) {
			c.request(1, false)
			c.must(c.WriteWindowUpdate(id, 1<<31-1))
		}
	}
	for name, breach := range map[string]struct {
		do     func(*raw)
		stream http2.ErrCode // 0: the connection ends
		conn   http2.ErrCode
	}{
		"even stream":         {do: func(c *raw) { c.request(2, true) }, conn: http2.ErrCodeProtocol},
		"older stream":        {do: func(c *raw) { c.request(3, true); c.request(1, true); c.request(5, true) }},
		"data before a head":  {do: func(c *raw) { c.must(c.WriteData(1, true, nil)) }, conn: http2.ErrCodeProtocol},
		"reset before a head": {do: func(c *raw) { c.must(c.WriteRSTStream(1, 0)) }, conn: http2.ErrCodeProtocol},
		"push": {do: func(c *raw) {
			c.must(c.WriteRawFrame(http2.FramePushPromise, http2.FlagPushPromiseEndHeaders, 1, make([]byte, 4)))
		}, conn: http2.ErrCodeProtocol},
		"large frame":         {do: func(c *raw) { c.must(c.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, maxFrame+1))) }, conn: http2.ErrCodeFrameSize},
		"large window":        {do: window(0), conn: http2.ErrCodeFlowControl},
		"large stream window": {do: window(1), stream: http2.ErrCodeFlowControl},
		"window of nothing":   {do: func(c *raw) { c.must(c.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, make([]byte, 4))) }, conn: http2.ErrCodeProtocol},
		"bad compression": {do: func(c *raw) {
			c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true}))
		}, conn: http2.ErrCodeCompression},
		"bad setting":       {do: func(c *raw) { c.must(c.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1})) }, conn: http2.ErrCodeProtocol},
		"connection header": {do: func(c *raw) { c.request(1, true, "connection", "close") }, stream: http2.ErrCodeProtocol},
		"te":                {do: func(c *raw) { c.request(1, true, "te", "gzip") }, stream: http2.ErrCodeProtocol},
		"upper case":        {do: func(c *raw) { c.request(1, true, "X-Own", "a") }, stream: http2.ErrCodeProtocol},
		"late pseudo field": {do: func(c *raw) { c.request(1, true, "x-own", "a", ":path", "/") }, stream: http2.ErrCodeProtocol},
		"no length":         {do: func(c *raw) { c.request(1, true, "content-length", "-1") }, stream: http2.ErrCodeProtocol},
		"two lengths":       {do: func(c *raw) { c.request(1, false, "content-length", "1", "content-length", "2") }, stream: http2.ErrCodeProtocol},
		"short body":        {do: func(c *raw) { c.request(1, false, "content-length", "2"); c.must(c.WriteData(1, true, []byte("a"))) }, stream: http2.ErrCodeProtocol},
		"long body":         {do: func(c *raw) { c.request(1, false, "content-length", "1"); c.must(c.WriteData(1, false, []byte("ab"))) }, stream: http2.ErrCodeProtocol},
		"no body":           {do: func(c *raw) { c.request(1, true, "content-length", "1") }, stream: http2.ErrCodeProtocol},
		"second head":       {do: func(c *raw) { c.request(1, false); c.request(1, false) }, stream: http2.ErrCodeProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			r.server.MaxHeaderBytes = 1 << 10
			c := r.dial()
			c.t = t
			breach.do(c)
			switch {
			case breach.conn != 0:
				f := c.until(func(f http2.Frame) bool { _, ok := f.(*http2.GoAwayFrame); return ok }).(*http2.GoAwayFrame)
				if f.ErrCode != breach.conn {
					t.Errorf("got %v, want %v", f.ErrCode, breach.conn)
				}
				if _, err := c.ReadFrame(); err == nil {
					t.Error("the connection goes on")
				}
			case breach.stream != 0:
				c.reset(1, breach.stream)
				c.request(3, true)
				c.ended(3)
			default:
				c.ended(5)
			}
		})
	}
	c := r.connect()
	c.must(c.WritePing(false, [8]byte{}))
	c.until(func(f http2.Frame) bool { _, ok := f.(*http2.GoAwayFrame); return ok })
}

// A head that is too large is answered with 431, whichever field is, and the handler
// sees none of it; requests after it are answered.
func TestLargeHead(t *testing.T) {
	called := make(chan string, 10)
	r := serve(t, func(_ http.ResponseWriter, q *http.Request) { called <- q.URL.Path })
	r.server.MaxHeaderBytes = 1 << 10
	c := r.dial()
	status := func(id uint32) string {
		return c.until(func(f http2.Frame) bool {
			_, ok := f.(*http2.MetaHeadersFrame)
			return ok && f.Header().StreamID == id
		}).(*http2.MetaHeadersFrame).PseudoValue("status")
	}
	many := slices.Repeat([]string{"x-own", "aaaaaaaaaa"}, 30)
	c.request(1, true, many...)
	c.request(3, false, many...)
	c.must(c.WriteData(3, true, []byte("body")))
	c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: 5, EndHeaders: true, EndStream: true,
		BlockFragment: c.fields(":method", "GET", ":scheme", "http", ":authority", "node", ":path", "/"+strings.Repeat("a", 900))}))
	got := map[uint32]string{}
	for len(got) < 3 {
		h := c.until(func(f http2.Frame) bool { _, ok := f.(*http2.MetaHeadersFrame); return ok }).(*http2.MetaHeadersFrame)
		got[h.StreamID] = h.PseudoValue("status")
	}
	for _, id := range []uint32{1, 3, 5} {
		if got[id] != "431" {
			t.Errorf("stream %d: status %q, want 431", id, got[id])
		}
	}
	c.request(7, true)
	if s := status(7); s != "200" || len(called) != 1 || <-called != "/" {
		t.Errorf("status %q after it, and %d more calls of the handler", s, len(called))
	}
}

// A client may not send more than the windows have, and gets room as its bodies are
// read, or thrown away.
func TestReceiveWindows(t *testing.T) {
	hold := make(chan struct{})
	r := serve(t, func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("X-Own") == "hold" {
			<-hold
		}
	})
	c := r.dial()
	for id := uint32(1); id < 200; id += 2 { // 25 MB that nobody reads
		c.request(id, false)
		for range 16 {
			c.must(c.WriteData(id, false, make([]byte, maxFrame)))
		}
		c.must(c.WriteData(id, true, nil))
		c.ended(id)
	}
	c.request(201, false, "x-own", "hold")
	for range receiveWindow/maxFrame + 1 {
		c.must(c.WriteData(201, false, make([]byte, maxFrame)))
	}
	c.until(func(f http2.Frame) bool {
		g, ok := f.(*http2.GoAwayFrame)
		return ok && g.ErrCode == http2.ErrCodeFlowControl
	})
	close(hold)
}

// A client may send the body that it announced, though the answer is there: some lose
// the answer where their stream is reset.
func TestAnswerBeforeBody(t *testing.T) {
	r := serve(t, func(http.ResponseWriter, *http.Request) {})
	c := r.dial()
	c.request(1, false, "content-length", "4")
	c.ended(1)
	for _, id := range []uint32{3, 5} {
		c.request(id, true)
		f := c.until(func(f http2.Frame) bool { return f.Header().StreamID > 0 })
		if _, ok := f.(*http2.MetaHeadersFrame); !ok || f.Header().StreamID != id {
			t.Fatalf("got %v, want the answer of stream %d", f, id)
		}
		if id == 3 {
			c.must(c.WriteData(1, true, []byte("body")))
		}
	}
	c.request(7, false, "content-length", fmt.Sprint(receiveWindow+1))
	c.reset(7, http2.ErrCodeNo)
}

// An answer waits for the client's windows, no longer than its deadline, and no other
// stream waits with it.
func TestSendWindows(t *testing.T) {
	failed := make(chan error, 1)
	r := serve(t, func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("X-Own") == "" {
			return
		}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		_, err := w.Write(make([]byte, joinBytes+1))
		failed <- err
	})
	c := r.dial(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000})
	c.request(1, true, "x-own", "slow")
	c.until(func(f http2.Frame) bool { return f.Header().Type == http2.FrameData && f.Header().Length == 1000 })
	c.request(3, true)
	c.ended(3)
	c.reset(1, http2.ErrCodeCancel)
	if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	c.must(c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100}))
	c.request(5, true, "x-own", "patient")
	c.until(func(f http2.Frame) bool { return f.Header().Type == http2.FrameData && f.Header().Length == 100 })
	c.must(c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 200})) // also of what is open
	c.until(func(f http2.Frame) bool { return f.Header().Type == http2.FrameData && f.Header().Length == 100 })
	c.must(c.WriteWindowUpdate(5, 1<<20))
	c.ended(5)
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

func TestReadDeadline(t *testing.T) {
	got := make(chan error, 1)
	r := serve(t, func(w http.ResponseWriter, q *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err := io.ReadAll(q.Body)
		got <- err
	})
	c := r.dial()
	c.request(1, false)
	if err := <-got; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	c.reset(1, http2.ErrCodeNo) // answered, and the rest of the body is not wanted
}

// The context of a request ends when its client gives it up or leaves.
func TestClientLeaves(t *testing.T) {
	begun, left := make(chan struct{}), make(chan struct{})
	r := serve(t, func(w http.ResponseWriter, q *http.Request) {
		begun <- struct{}{}
		<-q.Context().Done()
		left <- struct{}{}
	})
	c := r.dial()
	c.request(1, true)
	c.request(3, true)
	<-begun
	<-begun
	c.must(c.WriteRSTStream(1, http2.ErrCodeCancel))
	<-left
	c.conn.Close()
	<-left
}

// A client that opens and resets streams gets no more handlers than streams.
func TestResetStreamsAreCounted(t *testing.T) {
	var at, most atomic.Int64
	hold := make(chan struct{})
	r := serve(t, func(w http.ResponseWriter, q *http.Request) {
		most.Store(max(most.Load(), at.Add(1)))
		<-hold
		at.Add(-1)
	})
	c := r.dial()
	for id := uint32(1); id < 4000; id += 2 {
		c.request(id, true)
		c.must(c.WriteRSTStream(id, http2.ErrCodeCancel))
	}
	c.reset(3999, http2.ErrCodeRefusedStream)
	close(hold)
	if n := most.Load(); n > 2*maxStreams {
		t.Errorf("%d handlers at once", n)
	}
}

func TestPanicEndsItsStream(t *testing.T) {
	r := serve(t, func(w http.ResponseWriter, q *http.Request) {
		if why := q.Header.Get("X-Own"); why != "" {
			panic(why)
		}
	})
	c := r.dial()
	c.request(1, true, "x-own", "a mistake")
	c.reset(1, http2.ErrCodeInternal)
	c.request(3, true)
	c.ended(3)
	if !strings.Contains(r.log.String(), "a mistake") {
		t.Errorf("logged %q", r.log.String())
	}
}

// What was accepted is answered, and nothing else.
func TestShutdown(t *testing.T) {
	begun, hold := make(chan struct{}), make(chan struct{})
	r := serve(t, func(w http.ResponseWriter, q *http.Request) {
		begun <- struct{}{}
		<-hold
		echo(w, q)
	})
	c := r.dial()
	c.request(1, false)
	<-begun
	r.mu.Lock()
	go r.all[0].Shutdown()
	r.mu.Unlock()
	c.until(func(f http2.Frame) bool { g, ok := f.(*http2.GoAwayFrame); return ok && g.LastStreamID == 1 })
	c.request(3, true)
	c.reset(3, http2.ErrCodeRefusedStream)
	close(hold)
	c.must(c.WriteData(1, true, []byte("the rest")))
	c.ended(1)
	if _, err := c.ReadFrame(); err != io.EOF {
		t.Errorf("the connection did not end: %v", err)
	}
}

// A body that the client did not end is no whole one.
func TestCutBody(t *testing.T) {
	read := make(chan error, 1)
	r := serve(t, func(w http.ResponseWriter, q *http.Request) {
		_, err := io.ReadAll(q.Body)
		read <- err
	})
	c := r.dial()
	c.request(1, false)
	c.must(c.WriteData(1, false, []byte("a part")))
	c.must(c.conn.(*net.TCPConn).CloseWrite())
	if err := <-read; !errors.Is(err, errLeft) {
		t.Errorf("the body ended with %v", err)
	}
}

// A client that still sends when it is told to go reads why.
func TestGoAwayIsRead(t *testing.T) {
	r := serve(t, echo)
	c := r.dial()
	c.must(c.WriteData(99, true, nil)) // of a stream that never was
	for range 20 {
		c.must(c.WriteData(99, false, make([]byte, maxFrame)))
	}
	time.Sleep(200 * time.Millisecond) // the server, which would have closed the connection by now
	c.until(func(f http2.Frame) bool {
		g, ok := f.(*http2.GoAwayFrame)
		return ok && g.ErrCode == http2.ErrCodeProtocol
	})
}

func TestIdleConnectionEnds(t *testing.T) {
	r := serve(t, echo)
	r.server.IdleTimeout = 100 * time.Millisecond
	c := r.dial()
	c.until(func(f http2.Frame) bool { g, ok := f.(*http2.GoAwayFrame); return ok && g.ErrCode == http2.ErrCodeNo })
}

// FuzzServe sends any bytes behind the preface.
func FuzzServe(f *testing.F) {
	var b bytes.Buffer
	c := &raw{Framer: http2.NewFramer(&b, nil)}
	c.enc = hpack.NewEncoder(&c.buf)
	_ = c.WriteSettings()
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.fields(":method", "POST", ":scheme", "http", ":path", "/", "content-length", "3"), EndHeaders: true})
	_ = c.WriteData(1, true, []byte("abc"))
	_ = c.WriteWindowUpdate(0, 7)
	_ = c.WriteRSTStream(1, 0)
	_ = c.WritePing(false, [8]byte{1})
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		client, conn := net.Pipe()
		go io.Copy(io.Discard, client)
		go func() {
			_, _ = client.Write(in)
			client.Close()
		}()
		New(t.Context(), &http.Server{Handler: http.HandlerFunc(echo)}, wire{conn}, []byte(Preface)).Serve()
		conn.Close()
	})
}
