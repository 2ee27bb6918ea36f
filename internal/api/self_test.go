package api

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"oscine.dev/oscine/internal/node"
	"oscine.dev/oscine/internal/node/access"
	"oscine.dev/oscine/internal/node/identity"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pki"
)

// lockedNode has objects behind a lock, and nothing else.
type lockedNode struct {
	Node
	identity *identity.Identity

	mu sync.Mutex
}

func (n *lockedNode) Get(object.Kind, string) ([]object.State, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return nil, node.ErrNotFound
}

func (n *lockedNode) Identity() *identity.Identity { return n.identity }

func (n *lockedNode) Access() *access.List { return &access.List{} }

func (n *lockedNode) Inference() ([]string, http.Handler) { return nil, http.NotFoundHandler() }

func (n *lockedNode) Releases() http.Handler { return nil }
func (n *lockedNode) Metrics() http.Handler  { return http.NotFoundHandler() }

// TestAnswers: the API's call to itself needs no connection, and hangs where
// the node hangs.
func TestAnswers(t *testing.T) {
	authority, err := pki.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := pki.NewNode(authority, "edge1", nil)
	if err != nil {
		t.Fatal(err)
	}
	n := &lockedNode{identity: identityOf(t, authority, pair)}
	server := NewServer(n, slog.New(slog.DiscardHandler))
	if err := server.Answers(t.Context()); err != nil {
		t.Errorf("a node that works: %v", err)
	}
	n.mu.Lock()
	answered := make(chan error, 1)
	go func() { answered <- server.Answers(context.Background()) }()
	select {
	case err := <-answered:
		t.Errorf("a node whose lock is held answered: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	n.mu.Unlock()
	if err := <-answered; err != nil {
		t.Errorf("once the lock is free: %v", err)
	}
}

func TestMaintenanceAnswers(t *testing.T) {
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := (&Maintenance{Key: key}).Answers(t.Context()); err != nil {
		t.Error(err)
	}
}
