package api

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"oscine.dev/oscine/internal/listen"
)

// Bounds on what callers may have under way, so that none takes the daemon's
// memory: a call holds one message at the most.
const (
	maxCalls       = 512              // in all
	maxCallsCaller = 128              // of one name
	maxReads       = 256              // of files of releases, in all
	maxReadsCaller = 8                // of one name: a node needs one or two
	bodyPatience   = 30 * time.Second // for the next part of a request
)

// connections bounds the connections of the API.
func connections() listen.Limits {
	return listen.Limits{Strangers: 256, StrangersPerAddress: 64, Clients: 1024, ClientsPerAddress: 256}
}

// callers counts the calls under way by the caller's name.
type callers struct {
	most, mostOf int // in all, and of one name

	mu  sync.Mutex
	all int
	of  map[string]int
}

func (c *callers) enter(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all >= c.most || c.of[name] >= c.mostOf {
		return false
	}
	c.all++
	c.of[name]++
	return true
}

func (c *callers) leave(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if c.of[name]--; c.of[name] == 0 {
		delete(c.of, name)
	}
}

// bounded refuses calls beyond so many in all and of one name, and ends those whose
// request does not come. Both ends of a bidirectional call may be silent for long.
func bounded(most, mostOf int, next http.Handler) http.Handler {
	under := &callers{most: most, mostOf: mostOf, of: map[string]int{}}
	patient := bidirectional()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, _ := r.Context().Value(callerKey{}).(caller)
		if !under.enter(who.name) {
			w.Header().Set("Retry-After", "1")
			http.Error(w, fmt.Sprintf("too many calls are under way: at most %d of %q and %d in all: end some, such as oscine get --watch, or try again", mostOf, who.name, most), http.StatusTooManyRequests)
			return
		}
		defer under.leave(who.name)
		if !patient[r.URL.Path] {
			r.Body = &hurried{ReadCloser: r.Body, control: http.NewResponseController(w)}
		}
		next.ServeHTTP(w, r)
	})
}

// bidirectional are the paths of the calls in which the client speaks when it
// likes.
func bidirectional() map[string]bool {
	paths := map[string]bool{}
	protoregistry.GlobalFiles.RangeFilesByPackage("oscine.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			s := file.Services().Get(i)
			for j := range s.Methods().Len() {
				if m := s.Methods().Get(j); m.IsStreamingClient() && m.IsStreamingServer() {
					paths[fmt.Sprintf("/%s/%s", s.FullName(), m.Name())] = true
				}
			}
		}
		return true
	})
	return paths
}

// hurried is a request's body whose next part must come in time. What has come
// renews the time.
type hurried struct {
	io.ReadCloser
	control *http.ResponseController
}

func (h *hurried) Read(p []byte) (int, error) {
	_ = h.control.SetReadDeadline(time.Now().Add(bodyPatience)) // every connection of net/http has deadlines
	n, err := h.ReadCloser.Read(p)
	if err != nil { // the end: the call itself may take its time
		_ = h.control.SetReadDeadline(time.Time{})
	}
	return n, err
}
