package buckettest

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rclone/gofakes3"
	"github.com/rclone/gofakes3/s3mem"
)

// The credentials that a server of Start wants.
const (
	AccessKeyID     = "AKIDEXAMPLE"
	SecretAccessKey = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
)

// Bucket is the bucket that each server has.
const Bucket = "models"

// Server is an S3 server.
type Server struct {
	URL string

	t       testing.TB
	backend *s3mem.Backend
	server  *httptest.Server

	mu       sync.Mutex
	answer   http.HandlerFunc // in place of the server; nil: as usual
	readOnly bool             // objects, no listings
	cut      int              // bytes of an object after which each connection ends; 0: none
	silent   bool             // it stops sending there and holds the connection
	asked    []string         // methods, URIs and ranges
}

// Start starts a server that wants the package's credentials and ends with the test.
func Start(t testing.TB) *Server {
	return start(t, gofakes3.WithV4Auth(map[string]string{AccessKeyID: SecretAccessKey}))
}

// StartPublic starts one that asks for no credentials.
func StartPublic(t testing.TB) *Server { return start(t) }

func start(t testing.TB, options ...gofakes3.Option) *Server {
	t.Helper()
	s := &Server{t: t, backend: s3mem.New()}
	if err := s.backend.CreateBucket(context.Background(), Bucket); err != nil {
		t.Fatal(err)
	}
	inner := gofakes3.New(memory{s.backend}, options...).Server()
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { s.serve(w, q, inner) }))
	t.Cleanup(s.server.Close)
	s.URL = s.server.URL
	return s
}

// memory lists as S3 does: an empty delimiter is none.
type memory struct{ *s3mem.Backend }

func (m memory) ListBucket(ctx context.Context, name string, prefix *gofakes3.Prefix, page gofakes3.ListBucketPage) (*gofakes3.ObjectList, error) {
	if prefix != nil && prefix.Delimiter == "" {
		prefix = &gofakes3.Prefix{HasPrefix: prefix.HasPrefix, Prefix: prefix.Prefix}
	}
	return m.Backend.ListBucket(ctx, name, prefix, page)
}

// Put stores objects in the bucket, by their keys.
func (s *Server) Put(objects map[string]string) {
	s.t.Helper()
	for key, content := range objects {
		meta := map[string]string{"Last-Modified": time.Now().UTC().Format(http.TimeFormat)}
		if _, err := s.backend.PutObject(context.Background(), Bucket, key, meta, strings.NewReader(content), int64(len(content))); err != nil {
			s.t.Fatal(err)
		}
	}
}

// Close ends the server before the test does.
func (s *Server) Close() { s.server.Close() }

// Remove removes an object.
func (s *Server) Remove(key string) {
	s.t.Helper()
	if _, err := s.backend.DeleteObject(context.Background(), Bucket, key); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Server) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// Answer has another handler answer all; nil as usual.
func (s *Server) Answer(h http.HandlerFunc) { s.set(func() { s.answer = h }) }

// Cut ends each download after so many bytes; 0 ends none.
func (s *Server) Cut(after int) { s.set(func() { s.cut, s.silent = after, false }) }

// Hang stops sending after so many bytes of each download.
func (s *Server) Hang(after int) { s.set(func() { s.cut, s.silent = after, true }) }

// ForbidLists has it give objects and no listings.
func (s *Server) ForbidLists() { s.set(func() { s.readOnly = true }) }

// Asked are the requests since it was asked last, with their ranges.
func (s *Server) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

func (s *Server) serve(w http.ResponseWriter, q *http.Request, inner http.Handler) {
	s.mu.Lock()
	s.asked = append(s.asked, strings.TrimSpace(q.Method+" "+q.RequestURI+" "+q.Header.Get("Range")))
	answer, readOnly, cut, silent := s.answer, s.readOnly, s.cut, s.silent
	s.mu.Unlock()
	isList := q.URL.Query().Has("list-type")
	switch {
	case answer != nil:
		answer(w, q)
	case readOnly && isList:
		Refuse(w, http.StatusForbidden, "AccessDenied", "no listing")
	case cut > 0 && q.Method == http.MethodGet && q.URL.RawQuery == "":
		inner.ServeHTTP(&cutting{ResponseWriter: w, q: q, left: cut, silent: silent}, q)
	default:
		inner.ServeHTTP(w, q)
	}
}

// Refuse answers with an error as S3 does.
func Refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, "<Error><Code>"+code+"</Code><Message>"+message+"</Message></Error>")
}

// cutting ends a connection after so many bytes.
type cutting struct {
	http.ResponseWriter
	q      *http.Request
	left   int
	silent bool
}

func (c *cutting) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p[:min(len(p), c.left)])
	if c.left -= n; c.left > 0 || err != nil {
		return n, err
	}
	if flusher, ok := c.ResponseWriter.(http.Flusher); ok {
		flusher.Flush()
	}
	if c.silent {
		<-c.q.Context().Done()
	}
	panic(http.ErrAbortHandler)
}
