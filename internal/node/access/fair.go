package access

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/listen"
	"oscine.dev/oscine/internal/serve/core"
)

const (
	// atWork is how many requests a model has at work or in its own queue, which is
	// ordered by deadlines; the others wait their turn here.
	atWork = 64
	// inLine bounds the requests of one client that wait for one model.
	inLine = 256
	// patience bounds how long a request waits for its turn.
	patience = 5 * time.Second
)

// Fair gives the clients of a model the same part of it while it has more
// requests than it can take: the next turn is that of the client with the fewest
// requests at work. It is safe for concurrent use.
type Fair struct {
	mu    sync.Mutex
	lines map[string]*line // by model, while it has requests
}

// NewFair returns a Fair for all models of a node.
func NewFair() *Fair { return &Fair{lines: map[string]*line{}} }

// line is the requests to one model.
type line struct {
	running int
	waiting int
	clients []*place // those that have requests, the longest without a turn first
}

// place is a client in a line.
type place struct {
	client  string
	running int
	waiting []chan struct{} // closed at a request's turn
}

type nameKey struct{}

// Named returns a context of requests whose client is known by a name to Fair.
func Named(ctx context.Context, client string) context.Context {
	return context.WithValue(ctx, nameKey{}, client)
}

// Handler gives each request to next a guard that waits for its turn, once a
// guard that it has already admits it.
func (f *Fair) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t := &turn{fair: f, bounds: core.GuardOf(r.Context()), client: r.RemoteAddr}
		switch token, ok := t.bounds.(*client); {
		case ok:
			t.client = "token " + token.token.Name
		case r.TLS != nil && len(r.TLS.VerifiedChains) > 0:
			t.client = "certificate " + r.TLS.VerifiedChains[0][0].Subject.CommonName
		case named(r.Context()) != "":
			t.client = named(r.Context())
		default:
			t.client = listen.AddressOf(r.RemoteAddr)
		}
		next.ServeHTTP(w, r.WithContext(core.WithGuard(r.Context(), t)))
	})
}

func named(ctx context.Context) string {
	name, _ := ctx.Value(nameKey{}).(string)
	return name
}

// turn is the guard of one request or stream.
type turn struct {
	fair   *Fair
	bounds core.Guard // nil: none
	client string
}

// Client is whom the turn is for; see core.ClientOf.
func (t *turn) Client() string { return t.client }

// Allows implements core.Guard.
func (t *turn) Allows(model string) bool { return t.bounds == nil || t.bounds.Allows(model) }

// Admit implements core.Guard.
func (t *turn) Admit(ctx context.Context, model string) (done func(), err error) {
	ended := func() {}
	if t.bounds != nil {
		if ended, err = t.bounds.Admit(ctx, model); err != nil {
			return nil, err
		}
	}
	if err := t.fair.take(ctx, model, t.client); err != nil {
		ended()
		return nil, err
	}
	return func() {
		t.fair.give(model, t.client)
		ended()
	}, nil
}

// take waits for the client's turn at a model.
func (f *Fair) take(ctx context.Context, model, client string) error {
	f.mu.Lock()
	l := f.lines[model]
	if l == nil {
		l = &line{}
		f.lines[model] = l
	}
	p := l.place(client)
	if l.running < atWork && l.waiting == 0 {
		l.running++
		p.running++
		f.mu.Unlock()
		return nil
	}
	if len(p.waiting) >= inLine {
		f.mu.Unlock()
		return &late{fmt.Errorf("%w: %d requests of this client wait for %s already", errdefs.ErrResourceExhausted, inLine, model), time.Second}
	}
	mine := make(chan struct{})
	p.waiting = append(p.waiting, mine)
	l.waiting++
	f.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	var err error
	select {
	case <-mine:
		return nil
	case <-ctx.Done():
		err = fmt.Errorf("%w: the request waited for model %s and was not computed", ctx.Err(), model)
	case <-timer.C:
		err = &late{fmt.Errorf("%w: model %s was too busy to take the request within %v", errdefs.ErrResourceExhausted, model, patience), time.Second}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.Index(p.waiting, mine)
	if i < 0 {
		return nil // its turn came meanwhile
	}
	p.waiting = slices.Delete(p.waiting, i, i+1)
	l.waiting--
	f.forget(model, l, p)
	return err
}

// give ends a request, and gives its place to the next.
func (f *Fair) give(model, client string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.lines[model]
	p := l.place(client)
	p.running--
	l.running--
	if next := l.next(); next != nil {
		close(next.waiting[0])
		next.waiting = slices.Delete(next.waiting, 0, 1)
		l.waiting--
		next.running++
		l.running++
	}
	f.forget(model, l, p)
}

// place finds a client in the line, or gives it the last place.
func (l *line) place(client string) *place {
	for _, p := range l.clients {
		if p.client == client {
			return p
		}
	}
	p := &place{client: client}
	l.clients = append(l.clients, p)
	return p
}

// next is the client whose turn it is; nil where nobody waits. It goes behind
// all others that have as many requests at work.
func (l *line) next() *place {
	var next *place
	for _, p := range l.clients {
		if len(p.waiting) > 0 && (next == nil || p.running < next.running) {
			next = p
		}
	}
	if next != nil {
		i := slices.Index(l.clients, next)
		l.clients = append(slices.Delete(l.clients, i, i+1), next)
	}
	return next
}

// forget drops what has no requests any more. The caller holds mu.
func (f *Fair) forget(model string, l *line, p *place) {
	if p.running == 0 && len(p.waiting) == 0 {
		l.clients = slices.DeleteFunc(l.clients, func(q *place) bool { return q == p })
	}
	if len(l.clients) == 0 {
		delete(f.lines, model)
	}
}
