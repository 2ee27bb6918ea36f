package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Replace serves m in the place of the model of its name. Its worker starts beside
// the old one; once it is ready all requests go to it, and the old worker ends when
// it has answered those that it had. Replace returns when it has. Where the new
// one does not become ready, or ctx ends, it is taken back, the old one serves on,
// and the error says why.
func (r *Registry) Replace(ctx context.Context, m Model) error {
	if err := m.complete(); err != nil {
		return err
	}
	r.mu.Lock()
	old, err := r.replaced(&m)
	if err != nil {
		r.mu.Unlock()
		return err
	}
	next := r.startModel(m, nil, old)
	r.coming[m.Name] = next
	r.mu.Unlock()

	check := r.examine(ctx, old, next)
	if err = next.comesUp(ctx); err == nil {
		err = check()
	}
	r.mu.Lock()
	delete(r.coming, m.Name)
	if err == nil && (r.models[m.Name] != old || r.closed) {
		err = errors.New("it was removed meanwhile")
	}
	if err == nil {
		r.withdraw(old)
		r.enter(next)
	}
	r.mu.Unlock()
	if err != nil {
		if e := next.stop(true, r.patience); e != nil {
			return fmt.Errorf("%w (and %w)", err, e)
		}
		return err
	}
	next.notify()
	return r.retire(old)
}

// ReplaceInTurn is Replace where there is no room for two workers: the old one
// answers what it has and ends, then the new one starts. Requests wait meanwhile.
// It returns when the new one is ready. Where it does not become ready it stays
// all the same, to be replaced again; the error says why.
func (r *Registry) ReplaceInTurn(ctx context.Context, m Model) error {
	if err := m.complete(); err != nil {
		return err
	}
	r.mu.Lock()
	old, err := r.replaced(&m)
	if err != nil {
		r.mu.Unlock()
		return err
	}
	next := r.startModel(m, old.done, old)
	r.coming[m.Name] = next
	r.mu.Unlock()

	check := r.examine(ctx, old, next)
	r.mu.Lock()
	delete(r.coming, m.Name)
	if r.models[m.Name] != old || r.closed {
		r.mu.Unlock()
		return errors.Join(errors.New("it was removed meanwhile"), next.stop(true, r.patience))
	}
	r.withdraw(old)
	r.enter(next)
	r.mu.Unlock()
	if err := r.retire(old); err != nil {
		return err
	}
	if err := next.comesUp(ctx); err != nil {
		return err
	}
	return check()
}

// Examined is a model that is compared with another one.
type Examined struct {
	Status Status
	// Ask has it answer one request that is not counted.
	Ask func(context.Context, []Input) ([]Output, error)
}

// examine asks the old model, and returns what holds the next one to its answers.
func (r *Registry) examine(ctx context.Context, old, next *model) (check func() error) {
	if next.Examine == nil || len(old.Sequencing.States) > 0 || len(next.Sequencing.States) > 0 {
		return func() error { return nil }
	}
	examined := func(m *model) Examined {
		return Examined{m.status(), func(ctx context.Context, in []Input) ([]Output, error) { return r.ask(ctx, m, in) }}
	}
	held := next.Examine(ctx, examined(old))
	return func() error { return held(ctx, examined(next)) }
}

// ask has a model answer a request that is not counted.
func (r *Registry) ask(ctx context.Context, m *model, inputs []Input) ([]Output, error) {
	c, a := r.calls.get(), r.answers.get()
	defer r.calls.put(c)
	defer r.answers.put(a)
	q := Request{Model: m.ServedAs, Version: m.Version, Arrived: time.Now(), Inputs: inputs}
	c.job.arrived = q.Arrived
	err := m.Reshapes.request(&q)
	if err == nil {
		err = m.infer(ctx, c, a, &q)
	}
	if err == nil {
		err = m.Reshapes.outputs(a.outputs)
	}
	if err != nil {
		return nil, err
	}
	outputs := slices.Clone(a.outputs)
	for i := range outputs {
		outputs[i].Shape, outputs[i].Data = slices.Clone(outputs[i].Shape), slices.Clone(outputs[i].Data)
	}
	return outputs, nil
}

// replaced finds the model that one is to replace. The caller holds r.mu.
func (r *Registry) replaced(m *Model) (*model, error) {
	old := r.models[m.Name]
	switch {
	case old == nil:
		return nil, fmt.Errorf("%w: %s", ErrNotFound, m.Name)
	case r.coming[m.Name] != nil:
		return nil, fmt.Errorf("model %s is being replaced already", m.Name)
	}
	return old, r.free(m)
}

// retire ends a model that no request finds any more.
func (r *Registry) retire(m *model) error {
	if m.open.Load() { // else its requests wait for the next one
		m.drain(max(r.patience, 2*m.Timeout))
	}
	err := m.stop(true, r.patience)
	if err != nil {
		r.mu.Lock()
		r.leaving[m.Name] = m
		r.mu.Unlock()
	}
	return err
}

// comesUp waits until all instances of a model that has just started have been tried,
// and says why none is ready where that is so.
func (m *model) comesUp(ctx context.Context) error {
	for {
		changed := m.changed.wait()
		m.mu.Lock()
		state, message := m.state, m.message
		tried := !slices.ContainsFunc(m.instances, func(in *instance) bool { return in.state == Starting })
		m.mu.Unlock()
		switch {
		case !tried || state == Starting:
		case state == Ready || state == Idle:
			return nil
		default:
			return fmt.Errorf("%w: %s", ErrNotReady, message)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// drain waits for the requests that a model has, for a while. None are added.
func (m *model) drain(patience time.Duration) {
	answered := make(chan struct{})
	go func() {
		m.users.Wait()
		close(answered)
	}()
	select {
	case <-answered:
	case <-time.After(patience):
	}
}
