package api

import (
	"errors"
	"sync"

	"connectrpc.com/connect"
)

// mutexOnce runs functions one at a time until one succeeds; later ones are
// refused.
type mutexOnce struct {
	mu   sync.Mutex
	done bool
}

func (o *mutexOnce) do(f func() error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.done {
		return connect.NewError(connect.CodeFailedPrecondition, errors.New("the node is configured already; talk to its API with your context"))
	}
	if err := f(); err != nil {
		return err
	}
	o.done = true
	return nil
}
