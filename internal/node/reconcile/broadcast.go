package reconcile

import (
	"context"
	"sync"

	"oscine.dev/oscine/internal/object"
)

// broadcast tells subscribers which objects have changed. It never waits for
// them: a slow one gets each object once, however often it changed meanwhile.
type broadcast struct {
	mu   sync.Mutex
	subs map[*subscription]bool
}

type subscription struct {
	mu      sync.Mutex
	changed map[object.Key]bool
	order   []object.Key
	ready   chan struct{}
}

func newBroadcast() *broadcast { return &broadcast{subs: map[*subscription]bool{}} }

func (b *broadcast) subscribe() *subscription {
	s := &subscription{changed: map[object.Key]bool{}, ready: make(chan struct{}, 1)}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subs[s] = true
	return s
}

func (b *broadcast) unsubscribe(s *subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.subs, s)
}

func (b *broadcast) publish(key object.Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		s.add(key)
	}
}

func (s *subscription) add(key object.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.changed[key] {
		s.changed[key] = true
		s.order = append(s.order, key)
	}
	select {
	case s.ready <- struct{}{}:
	default: // already told
	}
}

// wait returns the objects that changed since the last call.
func (s *subscription) wait(ctx context.Context) ([]object.Key, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.ready:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := s.order
	s.order, s.changed = nil, map[object.Key]bool{}
	return keys, nil
}
