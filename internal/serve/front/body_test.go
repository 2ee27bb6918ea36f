package front

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"golang.org/x/sync/semaphore"

	"oscine.dev/oscine/internal/serve/core"
)

func body(t *testing.T, o *Options, r io.Reader) Body {
	t.Helper()
	b, err := o.Body(httptest.NewRecorder(), httptest.NewRequest("POST", "/", r))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A body takes memory as it arrives, not as it is announced, and gives it back.
func TestBodiesShareABudget(t *testing.T) { synctest.Test(t, bodiesShareABudget) }

func bodiesShareABudget(t *testing.T) {
	o := &Options{MaxBodyBytes: 1 << 20, budget: semaphore.NewWeighted(1 << 20)}
	first := body(t, o, strings.NewReader(strings.Repeat("x", 1<<20)))
	got, err := first.ReadExactly(nil, 900<<10)
	if err != nil || len(got) != 900<<10 {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	second := body(t, o, strings.NewReader("small"))
	if got, err := second.ReadExactly(nil, 5); err != nil || string(got) != "small" {
		t.Errorf("what fits beside it: %q %v", got, err)
	}
	third := body(t, o, strings.NewReader(strings.Repeat("x", 200<<10)))
	begin := time.Now()
	if _, err := third.ReadExactly(nil, 200<<10); !errors.Is(err, ErrBusy) || time.Since(begin) < memoryWait {
		t.Errorf("what does not fit: got %v after %v", err, time.Since(begin))
	}
	first.Close()
	second.Close()
	third.Close()
	if !o.budget.TryAcquire(1 << 20) {
		t.Error("the budget is not whole at the end")
	}
}

func TestBodyReadsWhatThereIs(t *testing.T) {
	o := &Options{MaxBodyBytes: 1 << 20, budget: semaphore.NewWeighted(1 << 21)}
	for name, n := range map[string]int{"nothing": 0, "a byte": 1, "a step": readStep, "more": readStep + 1, "all": 1 << 20, "too many": 1<<20 + 1} {
		text := strings.Repeat("x", n)
		b := body(t, o, iotest.OneByteReader(strings.NewReader(text)))
		if b.Length() != -1 {
			t.Errorf("%s: length %d", name, b.Length())
		}
		got, err := b.All([]byte("0"))
		if n > 1<<20 {
			if !errors.Is(err, ErrTooLarge) {
				t.Errorf("%s: got %v", name, err)
			}
		} else if err != nil || string(got) != "0"+text {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		b.Close()
		if n > 1<<20 {
			continue
		}
		b = body(t, o, strings.NewReader(text))
		if _, err := b.ReadExactly(nil, n+1); !errors.Is(err, core.ErrInvalid) && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s and one: got %v", name, err)
		}
		b.Close()
	}
}

// A client that sends nothing more, or reads nothing, is given up.
func TestDeadlinesAreSet(t *testing.T) {
	w := &recorder{ResponseRecorder: httptest.NewRecorder()}
	o := &Options{MaxBodyBytes: 1 << 20, budget: semaphore.NewWeighted(1 << 21)}
	b, err := o.Body(w, httptest.NewRequest("POST", "/", strings.NewReader(strings.Repeat("x", 3*readStep))))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.ReadExactly(nil, 3*readStep); err != nil {
		t.Fatal(err)
	}
	if w.reads != 1 || w.read.IsZero() {
		t.Errorf("%d read deadlines, the last %v", w.reads, w.read)
	}
	if b.Close(); !w.read.IsZero() {
		t.Error("the read deadline outlives the body")
	}
	Send(w, http.StatusOK, nil, make([]byte, 2*writeStep+1))
	if w.writes != 4 || !w.write.IsZero() || w.Body.Len() != 2*writeStep+1 {
		t.Errorf("%d write deadlines, the last %v", w.writes, w.write)
	}
}

type recorder struct {
	*httptest.ResponseRecorder
	read, write   time.Time
	reads, writes int
}

func (r *recorder) SetReadDeadline(t time.Time) error {
	r.read = t
	r.reads++
	return nil
}

func (r *recorder) SetWriteDeadline(t time.Time) error {
	r.write = t
	r.writes++
	return nil
}

// The deadline of one answer must not end a later one on the same connection,
// nor that of a body the computing after it.
func TestDeadlinesEndWithTheRequest(t *testing.T) {
	o := &Options{MaxBodyBytes: 1 << 20, budget: semaphore.NewWeighted(1 << 21)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := o.Body(w, r)
		if err != nil {
			t.Error(err)
		}
		defer b.Close()
		text, err := b.ReadExactly(nil, int(b.Length()))
		if err != nil {
			t.Error(err)
		}
		b.Done()
		if r.Context().Err() != nil {
			t.Error("the client seems gone")
		}
		Send(w, http.StatusOK, text)
	}))
	defer server.Close()
	var connections int
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		connections++
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}}
	for range 3 {
		resp, err := client.Post(server.URL, "", strings.NewReader("echo"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(got) != "echo" || resp.ContentLength != 4 {
			t.Errorf("got %q of %d, %v", got, resp.ContentLength, err)
		}
	}
	if connections != 1 {
		t.Errorf("%d connections for three requests", connections)
	}
}

// Requests beyond the bound are refused at once, whatever their protocol, and
// those that have ended make room.
func TestRequestsAreBounded(t *testing.T) {
	enter, leave := make(chan bool), make(chan bool)
	work := new(atomic.Int64)
	work.Store(maxRequests - 1)
	h := bounded(work, reject, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		enter <- true
		<-leave
	}))
	ask := func(grpc bool) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "/", nil)
		if grpc {
			r.ProtoMajor = 2
			r.Header.Set("Content-Type", "application/grpc")
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	first := make(chan bool)
	go func() {
		ask(false)
		close(first)
	}()
	<-enter
	if w := ask(false); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
		t.Errorf("got %d %v", w.Code, w.Header())
	}
	if w := ask(true); w.Header().Get("Grpc-Status") != "8" {
		t.Errorf("got %v", w.Header())
	}
	leave <- true
	<-first
	go func() {
		<-enter
		leave <- true
	}()
	if w := ask(false); w.Code != http.StatusOK {
		t.Errorf("after the first has ended: got %d", w.Code)
	}
}

// A stream that waits for its client's next message is no request at work.
func TestIdleStreamIsNoRequestAtWork(t *testing.T) {
	o := Options{MaxBodyBytes: 100, budget: newBudget(100), work: new(atomic.Int64)}
	o.work.Store(1)
	idle := int64(0)
	r := httptest.NewRequest("POST", "/", reader(func(p []byte) (int, error) {
		if n := o.work.Load(); n != idle && len(p) == 1 {
			t.Errorf("%d requests at work", n)
		}
		clear(p)
		return len(p), nil
	}))
	b, err := o.Body(httptest.NewRecorder(), r)
	if err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 5)
	if err := b.Next(head); err != nil || o.work.Load() != 1 {
		t.Errorf("got %v, %d requests at work", err, o.work.Load())
	}
	idle = maxRequests
	o.work.Store(idle + 1)
	if err := b.Next(head); !errors.Is(err, ErrBusy) || o.work.Load() != maxRequests+1 {
		t.Errorf("of a busy node: got %v, %d requests at work", err, o.work.Load())
	}
}

type reader func([]byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }
