package rpc

import (
	"fmt"
	"net/http"
	"sync"

	"oscine.dev/oscine/internal/listen"
	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/front"
)

// Bounds of the streams that are open at a time. One that waits for its client's
// next message is no request at work, but it is memory.
const (
	maxStreams       = 16 << 10
	maxClientStreams = 256 // of one client
)

// clientOf tells clients apart as turns at a model do, and by address where they
// are taken without.
func clientOf(r *http.Request) string {
	if client := core.ClientOf(r.Context()); client != "" {
		return client
	}
	return listen.AddressOf(r.RemoteAddr)
}

// streams are those that are open, by their clients.
type streams struct {
	mu   sync.Mutex
	all  int
	open map[string]int
}

// enter counts a stream until leave is called, or refuses it.
func (s *streams) enter(client string) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.open[client] >= maxClientStreams:
		return nil, fmt.Errorf("%w: %s has %d streams open: close one, or use one for several requests", front.ErrBusy, client, maxClientStreams)
	case s.all >= maxStreams:
		return nil, fmt.Errorf("%w: the node has %d streams open: try again later", front.ErrBusy, maxStreams)
	}
	s.all++
	s.open[client]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all--
		if s.open[client]--; s.open[client] == 0 {
			delete(s.open, client)
		}
	}, nil
}
