package artifacttest

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
)

// Faulty is a registry in memory whose faults a test sets.
type Faulty struct {
	Host string

	mu       sync.Mutex
	password string            // that it wants of anyone; "": none
	cut      int               // bytes of a blob after which each connection ends; 0: none
	silent   bool              // it stops sending there and holds the connection
	status   int               // with which it answers all; 0: as usual
	instead  map[string][]byte // what it sends for a digest
	noRanges bool
	sent     int64    // bytes of blobs
	asked    []string // methods, paths and ranges
}

// StartFaulty starts a registry that ends with the test.
func StartFaulty(t testing.TB) *Faulty {
	t.Helper()
	f := &Faulty{instead: map[string][]byte{}}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { f.serve(w, q, inner) }))
	t.Cleanup(server.Close)
	f.Host = strings.TrimPrefix(server.URL, "http://")
	return f
}

// Set changes the registry's faults.
func (f *Faulty) Set(change func(*Faulty)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// Password has it want a password of anyone, with any name.
func (f *Faulty) Password(password string) { f.Set(func(f *Faulty) { f.password = password }) }

// Cut ends each download after so many bytes; 0 ends none.
func (f *Faulty) Cut(after int) { f.Set(func(f *Faulty) { f.cut, f.silent = after, false }) }

// Hang stops sending after so many bytes of each download.
func (f *Faulty) Hang(after int) { f.Set(func(f *Faulty) { f.cut, f.silent = after, true }) }

// Answer has it answer all with a status; 0 as usual.
func (f *Faulty) Answer(status int) { f.Set(func(f *Faulty) { f.status = status }) }

// Lie has it send something else for a digest.
func (f *Faulty) Lie(digest string, content []byte) {
	f.Set(func(f *Faulty) { f.instead[digest] = content })
}

// NoRanges has it know nothing of parts of blobs.
func (f *Faulty) NoRanges() { f.Set(func(f *Faulty) { f.noRanges = true }) }

// Sent is how many bytes of blobs it has sent since it was asked last.
func (f *Faulty) Sent() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.sent
	f.sent = 0
	return n
}

// Asked are the requests since it was asked last, with their ranges.
func (f *Faulty) Asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := f.asked
	f.asked = nil
	return asked
}

func (f *Faulty) serve(w http.ResponseWriter, q *http.Request, inner http.Handler) {
	f.mu.Lock()
	f.asked = append(f.asked, strings.TrimSpace(q.Method+" "+q.URL.Path+" "+q.Header.Get("Range")))
	_, password, _ := q.BasicAuth()
	denied := f.password != "" && password != f.password
	status, cut, silent, noRanges := f.status, f.cut, f.silent, f.noRanges
	lie, lies := f.instead[q.URL.Path[strings.LastIndex(q.URL.Path, "/")+1:]]
	f.mu.Unlock()
	switch {
	case denied:
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
		return
	case status != 0:
		w.WriteHeader(status)
		return
	}
	blob := q.Method == http.MethodGet && strings.Contains(q.URL.Path, "/blobs/sha256:")
	if noRanges {
		q.Header.Del("Range")
	} else if blob {
		w.Header().Set("Accept-Ranges", "bytes") // it knows them, and does not say so
	}
	if lies {
		_, _ = w.Write(lie)
		return
	}
	if blob {
		w = &counting{w, f, cut, silent, q}
	}
	inner.ServeHTTP(w, q)
}

// counting counts what is sent of a blob, and ends it where it is to be cut.
type counting struct {
	http.ResponseWriter
	f      *Faulty
	cut    int
	silent bool
	q      *http.Request
}

func (c *counting) Write(p []byte) (int, error) {
	c.f.mu.Lock()
	n := len(p)
	if c.cut > 0 {
		n = min(n, c.cut)
	}
	c.f.sent += int64(n)
	c.f.mu.Unlock()
	if c.cut > 0 && n < len(p) || c.cut == n && n > 0 {
		_, _ = c.ResponseWriter.Write(p[:n])
		if flusher, ok := c.ResponseWriter.(http.Flusher); ok {
			flusher.Flush()
		}
		if c.silent {
			<-c.q.Context().Done()
		}
		panic(http.ErrAbortHandler)
	}
	c.cut = max(0, c.cut-n)
	return c.ResponseWriter.Write(p)
}
