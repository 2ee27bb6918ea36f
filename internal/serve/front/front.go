package front

import (
	"fmt"
	"net/http"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"oscine.dev/oscine/internal/serve/core"
)

// Front is one protocol by which clients reach the models.
type Front struct {
	Name string // the protocol's usual name
	// Routes are the patterns of http.ServeMux that the protocol answers. No
	// other front may claim them.
	Routes []string
	// New returns the handler of the routes.
	New func(*core.Registry, Options) http.Handler
	// Reject answers a request of the routes that does not come to New's handler, in
	// the protocol's form of errors; nil: as Error does.
	Reject func(http.ResponseWriter, error)
}

// Options are the settings of all fronts.
type Options struct {
	MaxBodyBytes int64 // of one request; 0 means 64 MiB
	// Trace wraps the mux of all fronts, so that it sees each request with the
	// pattern that it matched; nil leaves it as it is.
	Trace func(http.Handler) http.Handler

	budget *semaphore.Weighted // of the bytes of all requests' bodies; Handler makes it
	work   *atomic.Int64       // requests that are read, computed and answered; so does Handler
}

const defaultMaxBody = 64 << 20

// Handler serves the models by all the fronts.
func Handler(r *core.Registry, o Options, fronts []Front) http.Handler {
	if o.MaxBodyBytes == 0 {
		o.MaxBodyBytes = defaultMaxBody
	}
	o.budget, o.work = newBudget(o.MaxBodyBytes), new(atomic.Int64)
	mux := http.NewServeMux()
	var quick []Quick
	for _, f := range fronts {
		h := f.New(r, o)
		if q, ok := h.(Quick); ok {
			quick = append(quick, q)
		}
		for _, route := range f.Routes {
			mux.Handle(route, h)
		}
	}
	var all http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, q := range quick {
			if q.ServeQuick(w, r) {
				return
			}
		}
		mux.ServeHTTP(w, r)
	})
	if o.Trace != nil {
		all = o.Trace(all)
	}
	return bounded(o.work, Rejecter(fronts), all)
}

// Quick is implemented by the handler of a front that knows by itself the route which
// is asked most: to find it in two muxes takes as long as to read the request.
type Quick interface {
	// ServeQuick reports whether it has answered the request, with its Pattern set, as
	// the mux would have had it answered.
	ServeQuick(http.ResponseWriter, *http.Request) bool
}

// Header is the first value of a header whose name is in its canonical form, which
// http.Header.Get looks at byte by byte each time.
func Header(h http.Header, name string) string {
	if values := h[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// Rejecter returns what answers a request that no front gets to see, as the clients
// of its protocol expect it.
func Rejecter(fronts []Front) func(http.ResponseWriter, *http.Request, error) {
	mux, forms := http.NewServeMux(), map[string]func(http.ResponseWriter, error){}
	for _, f := range fronts {
		for _, route := range f.Routes {
			mux.Handle(route, http.NotFoundHandler())
			forms[route] = f.Reject
		}
	}
	return func(w http.ResponseWriter, r *http.Request, err error) {
		_, route := mux.Handler(r)
		if form := forms[route]; form != nil {
			form(w, err)
			return
		}
		reject(w, r, err)
	}
}

// maxRequests bounds the requests that are read, computed and answered at a
// time: one connection of HTTP/2 brings many.
const maxRequests = 16 << 10

// bounded refuses requests while there are too many.
func bounded(work *atomic.Int64, reject func(http.ResponseWriter, *http.Request, error), next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer work.Add(-1)
		if err := begin(work); err != nil {
			reject(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// begin counts a request at work; the caller must take it back also where it is
// refused.
func begin(work *atomic.Int64) error {
	if work.Add(1) > maxRequests {
		return fmt.Errorf("%w: the node has %d requests at work: send it again later", ErrBusy, maxRequests)
	}
	return nil
}
