package node

import (
	"sync"

	"oscine.dev/oscine/internal/object"
)

// wish is what an object is meant to be. Its controller waits on wake for a
// change of it.
type wish struct {
	mu   sync.Mutex
	obj  object.Object
	lost error         // why its placement is gone; nil where it is not
	wake chan struct{} // holds one token after a change
}

func newWish(obj object.Object) *wish {
	return &wish{obj: obj, wake: make(chan struct{}, 1)}
}

func (w *wish) current() object.Object {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.obj
}

// become replaces the manifest.
func (w *wish) become(obj object.Object) {
	w.mu.Lock()
	w.obj = obj
	w.mu.Unlock()
	w.ring()
}

// lose says that the object's placement is gone.
func (w *wish) lose(reason error) {
	w.mu.Lock()
	w.lost = reason
	w.mu.Unlock()
	w.ring()
}

// takeLost returns why the placement is gone, once.
func (w *wish) takeLost() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	lost := w.lost
	w.lost = nil
	return lost
}

func (w *wish) ring() {
	select {
	case w.wake <- struct{}{}:
	default: // a token is there already
	}
}
