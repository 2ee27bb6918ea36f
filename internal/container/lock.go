package container

import (
	"context"
	"sync"
)

// keyedLock is a mutex per key. The zero value is ready.
type keyedLock struct {
	mu   sync.Mutex
	held map[string]*heldLock
}

type heldLock struct {
	free  chan struct{} // holds one token while nobody holds the lock
	users int           // holders and those who wait
}

// Lock locks key, or returns ctx's error.
func (k *keyedLock) Lock(ctx context.Context, key string) error {
	k.mu.Lock()
	if k.held == nil {
		k.held = map[string]*heldLock{}
	}
	l := k.held[key]
	if l == nil {
		l = &heldLock{free: make(chan struct{}, 1)}
		l.free <- struct{}{}
		k.held[key] = l
	}
	l.users++
	k.mu.Unlock()
	select {
	case <-l.free:
		return nil
	case <-ctx.Done():
		k.leave(key, l)
		return ctx.Err()
	}
}

// Unlock unlocks key.
func (k *keyedLock) Unlock(key string) {
	k.mu.Lock()
	l := k.held[key]
	k.mu.Unlock()
	l.free <- struct{}{}
	k.leave(key, l)
}

func (k *keyedLock) leave(key string, l *heldLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(k.held, key)
	}
}
