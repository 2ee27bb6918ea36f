package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Registry holds the models that a node serves. Each has its own worker, its
// own shared memory and its own queue. It is safe for concurrent use.
type Registry struct {
	mu      sync.RWMutex
	models  map[string]*model
	served  map[string]*model // by the names that clients use
	leaving map[string]*model // removed, and their workers have not ended
	closed  bool

	patience time.Duration // stopPatience, but for tests

	calls   calls
	answers answers
}

// NewRegistry returns an empty registry.
func NewRegistry() *Registry {
	return &Registry{models: map[string]*model{}, served: map[string]*model{}, leaving: map[string]*model{}, patience: stopPatience}
}

// Add begins to serve a model and returns at once; Status tells when it is
// ready. It fails when the name is taken: Remove the old one first.
func (r *Registry) Add(m Model) error {
	if m.Version == "" {
		m.Version = "1"
	}
	if m.ServedAs == "" {
		m.ServedAs = m.Name
	}
	if err := m.check(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return errors.New("the registry is closed")
	case r.models[m.Name] != nil:
		return fmt.Errorf("model %s is already served", m.Name)
	case r.served[m.ServedAs] != nil:
		return fmt.Errorf("model %s: the name %s is model %s's already: choose another to serve it as", m.Name, m.ServedAs, r.served[m.ServedAs].Name)
	}
	var before <-chan struct{}
	if old := r.leaving[m.Name]; old != nil {
		before = old.done
	}
	s := startModel(m, before)
	r.models[m.Name], r.served[m.ServedAs] = s, s
	return nil
}

// Remove stops serving a model: its requests fail, its worker is killed. It
// returns once the worker has ended, or ErrNotFound. A worker that cannot be
// killed is an error after some seconds; killing it goes on, Remove may be called
// again to wait for its end, and a model of the same name is added but starts no
// worker before that.
func (r *Registry) Remove(name string) error {
	r.mu.Lock()
	m, left := r.models[name], r.leaving[name]
	if m != nil {
		delete(r.models, name)
		delete(r.served, m.ServedAs)
		r.leaving[name] = m
	}
	r.mu.Unlock()
	var err error
	switch {
	case m != nil:
		err = m.stop(true, r.patience)
	case left != nil:
		m, err = left, left.ended(r.patience)
	default:
		return fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	if r.leaving[name] == m {
		delete(r.leaving, name)
	}
	r.mu.Unlock()
	return nil
}

// Close stops serving all models and leaves their workers running, for the
// next daemon to adopt.
func (r *Registry) Close() {
	r.mu.Lock()
	models := r.models
	r.models, r.closed = map[string]*model{}, true
	clear(r.served)
	r.mu.Unlock()
	for _, m := range models {
		_ = m.stop(false, r.patience) // what has not ended by then ends with the daemon
	}
}

// Status describes one model, or returns ErrNotFound.
func (r *Registry) Status(name string) (Status, error) {
	m, err := r.model(name)
	if err != nil {
		return Status{}, err
	}
	return m.status(), nil
}

// StatusOf describes a version of the model that a client names, or returns
// ErrNotFound; version "" means whichever is served.
func (r *Registry) StatusOf(name, version string) (Status, error) {
	m, err := r.asked(name, version)
	if err != nil {
		return Status{}, err
	}
	return m.status(), nil
}

// List describes all models, sorted by name.
func (r *Registry) List() []Status {
	r.mu.RLock()
	list := make([]Status, 0, len(r.models))
	for _, m := range r.models {
		list = append(list, m.status())
	}
	r.mu.RUnlock()
	slices.SortFunc(list, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// WaitReady blocks until the model answers, has failed, or ctx ends.
func (r *Registry) WaitReady(ctx context.Context, name string) error {
	m, err := r.model(name)
	if err != nil {
		return err
	}
	_, err = m.waitConn(ctx)
	return err
}

// model finds a model by its owner's name.
func (r *Registry) model(name string) (*model, error) {
	r.mu.RLock()
	m := r.models[name]
	r.mu.RUnlock()
	if m == nil {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	return m, nil
}

// asked finds a model by the name that a client uses; version "" means whichever
// is served.
func (r *Registry) asked(name, version string) (*model, error) {
	r.mu.RLock()
	m := r.served[name]
	r.mu.RUnlock()
	switch {
	case m == nil:
		return nil, fmt.Errorf("%w: no model %q is served here", ErrNotFound, name)
	case version != "" && version != m.Version:
		return nil, fmt.Errorf("%w: model %q is served in version %q, not %q", ErrNotFound, name, m.Version, version)
	}
	return m, nil
}
