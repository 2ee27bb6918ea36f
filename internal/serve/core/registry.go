package core

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// Registry holds the models that a node serves. Each has its own workers, its
// own shared memory and its own queue. It is safe for concurrent use.
type Registry struct {
	mu      sync.RWMutex
	models  map[string]*model
	served  map[string][]*model // the versions of the names that clients use, the newest first
	coming  map[string]*model   // start to take the place of one of models
	leaving map[string]*model   // removed, and their workers have not ended
	closed  bool
	changes signal // of which models are served, and what they are

	patience time.Duration // stopPatience, but for tests

	observer Observer // nil: nobody follows requests

	cores   cores
	cached  *semaphore.Weighted // bytes of all models' response caches
	states  *states
	calls   calls
	answers *answers
}

// NewRegistry returns an empty registry.
func NewRegistry() *Registry {
	return &Registry{
		models: map[string]*model{}, served: map[string][]*model{}, coming: map[string]*model{}, leaving: map[string]*model{}, patience: stopPatience,
		answers: newAnswers(min(DefaultAnswers, debug.SetMemoryLimit(-1)/4)),
		cached:  semaphore.NewWeighted(min(MaxCache, debug.SetMemoryLimit(-1)/8)),
		states:  newStates(min(maxStateBytes, debug.SetMemoryLimit(-1)/8)),
	}
}

// Add begins to serve a model and returns at once; Status tells when it is
// ready. It fails when the name is taken, see Replace, and when another model is
// served by the same name and version.
func (r *Registry) Add(m Model) error {
	if err := m.complete(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.models[m.Name] != nil {
		return fmt.Errorf("model %s is already served", m.Name)
	}
	if err := r.free(&m); err != nil {
		return err
	}
	var before <-chan struct{}
	if old := r.leaving[m.Name]; old != nil {
		before = old.done
	}
	r.enter(r.startModel(m, before, nil))
	return nil
}

// Remove stops serving a model: it takes no more requests, answers those that it
// has for a while, and its worker is killed. It returns once the worker has ended,
// or ErrNotFound. A worker that cannot be killed is an error after some seconds;
// killing it goes on, Remove may be called again to wait for its end, and a model
// of the same name is added but starts no worker before that.
func (r *Registry) Remove(name string) error {
	r.mu.Lock()
	m, left := r.models[name], r.leaving[name]
	if m != nil {
		r.withdraw(m)
		r.leaving[name] = m
	}
	r.mu.Unlock()
	var err error
	switch {
	case m != nil:
		m.drain(r.patience)
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

// Close stops serving all models, once they have answered what they have, and
// leaves their workers running, for the next daemon to adopt.
func (r *Registry) Close() {
	r.mu.Lock()
	models := r.models
	r.models, r.closed = map[string]*model{}, true
	clear(r.served)
	r.mu.Unlock()
	var all sync.WaitGroup
	for _, m := range models {
		all.Go(func() {
			m.drain(r.patience)
			_ = m.stop(false, r.patience) // what has not ended by then ends with the daemon
		})
	}
	all.Wait()
}

// Status describes one model, or returns ErrNotFound.
func (r *Registry) Status(name string) (Status, error) {
	m, err := r.model(name)
	if err != nil {
		return Status{}, err
	}
	return m.status(), nil
}

// StatusOf describes a version of the model that the client of ctx names, or returns
// ErrNotFound or what its guard says; version "" means the newest that answers.
func (r *Registry) StatusOf(ctx context.Context, name, version string) (Status, error) {
	if err := permit(ctx, name); err != nil {
		return Status{}, err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	m, err := r.find(name, version)
	if err != nil {
		return Status{}, err
	}
	s := m.status()
	for _, other := range slices.Backward(r.served[name]) {
		s.Versions = append(s.Versions, other.Version)
	}
	return s, nil
}

// List describes all models that the client of ctx may ask, sorted by name.
func (r *Registry) List(ctx context.Context) []Status {
	r.mu.RLock()
	list := make([]Status, 0, len(r.models))
	for _, m := range r.models {
		if allows(ctx, m.ServedAs) {
			list = append(list, m.status())
		}
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
	return m.waitReady(ctx)
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
