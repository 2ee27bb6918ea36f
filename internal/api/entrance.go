package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"oscine.dev/oscine/internal/node/access"
)

var (
	errExpired = errors.New("your certificate has expired: ask the holder of the authority for another (oscine config credentials)")
	errRevoked = errors.New("your certificate has been revoked: ask an administrator of the node for another")
)

// entrance knows the calls under way by the certificates of those who made them.
// It is safe for concurrent use.
type entrance struct {
	access *access.List

	mu    sync.Mutex
	calls map[string]map[*call]bool // by serial number
}

// call is one request under way.
type call struct {
	end        context.CancelCauseFunc
	connection net.Conn // nil where the server does not tell it
}

func newEntrance(list *access.List) *entrance {
	return &entrance{access: list, calls: map[string]map[*call]bool{}}
}

// identify puts the caller of each request into its context, and ends the
// request with the caller's certificate. The TLS layer has verified the
// certificate already.
func (e *entrance) identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		state := verified(r.TLS)
		who := callerOf(state)
		ctx, end := context.WithCancelCause(r.Context())
		defer end(nil)
		if who.serial != "" {
			// Known before the list is asked: a revocation after that finds it.
			defer e.begin(who.serial, &call{end, connectionOf(ctx)})()
			if e.access.Revoked(who.serial) {
				who.role, who.refused = 0, errRevoked
			}
		}
		if !who.until.IsZero() { // an open connection does not outlive its certificate
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadlineCause(ctx, who.until, errExpired)
			defer cancel()
			if errors.Is(context.Cause(ctx), errExpired) {
				who.role, who.refused = 0, errExpired
			}
		}
		if who.refused != nil {
			w.Header().Set("Connection", "close") // over HTTP/2 too, see http.Server
		}
		r = r.WithContext(context.WithValue(ctx, callerKey{}, who))
		r.TLS = state
		next.ServeHTTP(w, r)
	})
}

// begin notes a call until the function that it returns is called.
func (e *entrance) begin(serial string, one *call) (ended func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.calls[serial] == nil {
		e.calls[serial] = map[*call]bool{}
	}
	e.calls[serial][one] = true
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if delete(e.calls[serial], one); len(e.calls[serial]) == 0 {
			delete(e.calls, serial)
		}
	}
}

// farewell is how long a call that is cut off may take to answer why.
const farewell = time.Second

// cutOff ends the calls by a certificate: those that do not end when they are
// told to lose their connection.
func (e *entrance) cutOff(serial string) {
	each := func(f func(*call)) {
		e.mu.Lock()
		defer e.mu.Unlock()
		for one := range e.calls[serial] {
			f(one)
		}
	}
	each(func(one *call) { one.end(errRevoked) })
	time.AfterFunc(farewell, func() {
		if !e.access.Revoked(serial) {
			return // restored meanwhile
		}
		var left []net.Conn
		each(func(one *call) { left = append(left, one.connection) })
		for _, connection := range left {
			if connection != nil {
				connection.Close() // may wait for the peer: not with mu held
			}
		}
	})
}

type connectionKey struct{}

// withConnection is http.Server.ConnContext.
func withConnection(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, c)
}

func connectionOf(ctx context.Context) net.Conn {
	c, _ := ctx.Value(connectionKey{}).(net.Conn)
	return c
}
