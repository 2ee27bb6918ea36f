package share

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"oscine.dev/oscine/internal/bounded"
	"oscine.dev/oscine/internal/update"
)

// Bounds of what is served.
const (
	maxTransfers = 16               // files at once
	maxMetadata  = 4                // files of metadata at once: each is read whole
	turnPatience = 10 * time.Second // for one of these
	writeTime    = 30 * time.Second // for a peer to take the next bytes
	tryAgain     = 2 * time.Second  // what a peer that must wait is told
)

// Config says what a [Server] serves.
type Config struct {
	Cache *Cache
	// Metadata returns metadata of a release folder by its name, or fs.ErrNotExist.
	Metadata func(name string) ([]byte, error)
	// Pinned opens a pack or model file that a release pins, by its digest, or returns
	// fs.ErrNotExist.
	Pinned func(update.Digest) (*os.File, error)
	// BytesPerSecond bounds what all peers get together; 0 for no bound.
	BytesPerSecond int64
}

// Server serves files of releases, at the paths that they have in a release folder.
// It is an http.Handler, safe for concurrent use.
type Server struct {
	Config
	rate  *bounded.Rate
	turns chan struct{} // of files
	metas chan struct{} // of metadata, which does not wait for files
	sent  atomic.Int64
}

// NewServer returns a server.
func NewServer(c Config) *Server {
	return &Server{Config: c, rate: bounded.NewRate(c.BytesPerSecond), turns: make(chan struct{}, maxTransfers), metas: make(chan struct{}, maxMetadata)}
}

// Sent is how many bytes of files peers got.
func (s *Server) Sent() int64 { return s.sent.Load() }

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "files of releases are only read", http.StatusMethodNotAllowed)
		return
	}
	name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
	if file, ok := strings.CutPrefix(name, "metadata/"); ok {
		s.metadata(w, r, name, file)
		return
	}
	digest, ok := digestOf(name)
	if !ok {
		s.missing(w, name)
		return
	}
	s.file(w, r, name, digest)
}

// digestOf is the digest that the name of a target begins with.
func digestOf(name string) (d update.Digest, ok bool) {
	if !strings.HasPrefix(name, "targets/") {
		return d, false
	}
	digest, _, ok := strings.Cut(path.Base(name), ".")
	return d, ok && d.UnmarshalText([]byte(digest)) == nil
}

func (s *Server) missing(w http.ResponseWriter, name string) {
	http.Error(w, fmt.Sprintf("this node has not %s", name), http.StatusNotFound)
}

func (s *Server) busy(w http.ResponseWriter, why string) {
	w.Header().Set("Retry-After", strconv.Itoa(int(tryAgain.Seconds())))
	http.Error(w, why, http.StatusServiceUnavailable)
}

// turn waits for a place among those that are served, and answers where there is none for too
// long. done, which is nil then, gives it back.
func (s *Server) turn(w http.ResponseWriter, r *http.Request, turns chan struct{}) (done func()) {
	waiting, cancel := context.WithTimeout(r.Context(), turnPatience)
	defer cancel()
	select {
	case turns <- struct{}{}:
		return func() { <-turns }
	case <-waiting.Done():
		s.busy(w, fmt.Sprintf("this node sends %d files already", cap(turns)))
		return nil
	}
}

func (s *Server) metadata(w http.ResponseWriter, r *http.Request, name, file string) {
	done := s.turn(w, r, s.metas)
	if done == nil {
		return
	}
	defer done()
	text, err := s.Metadata(file)
	if err != nil {
		s.missing(w, name)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	s.send(w, r, bytes.NewReader(text))
}

func (s *Server) file(w http.ResponseWriter, r *http.Request, name string, digest update.Digest) {
	f, err := s.Cache.Get(digest)
	if err != nil {
		f, err = s.Pinned(digest)
	}
	if err != nil {
		if s.Cache.onItsWay(digest) {
			s.busy(w, "this node is downloading it")
			return
		}
		s.missing(w, name)
		return
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() { // a model of several files
		s.missing(w, name)
		return
	}
	if r.Method == http.MethodGet { // after it is known that the file is here: one that is not is no reason to wait
		done := s.turn(w, r, s.turns)
		if done == nil {
			return
		}
		defer done()
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	s.send(w, r, f)
}

func (s *Server) send(w http.ResponseWriter, r *http.Request, content io.ReadSeeker) {
	http.ServeContent(&sender{ResponseWriter: w, server: s, ctx: r.Context(), control: http.NewResponseController(w)}, r, "", time.Time{}, content)
}

// sender sends not faster than allowed, and gives up on a peer that takes nothing.
type sender struct {
	http.ResponseWriter
	server  *Server
	ctx     context.Context
	control *http.ResponseController
}

func (w *sender) Write(p []byte) (sent int, err error) {
	for len(p) > 0 && err == nil {
		n := w.server.rate.Most(len(p))
		if err = w.server.rate.Wait(w.ctx, n); err != nil {
			break
		}
		_ = w.control.SetWriteDeadline(time.Now().Add(writeTime)) // every connection of net/http has deadlines
		n, err = w.ResponseWriter.Write(p[:n])
		sent += n
		w.server.sent.Add(int64(n))
		p = p[n:]
	}
	if err == nil {
		err = w.control.SetWriteDeadline(time.Time{})
		if errors.Is(err, http.ErrNotSupported) {
			err = nil
		}
	}
	return sent, err
}
