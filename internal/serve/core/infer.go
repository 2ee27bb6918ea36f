package core

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

// Infer runs one inference and returns its answer. A request whose ctx ends
// before a worker has taken it is not computed. Its errors are of the classes
// that this package's errors tell; what is of none is the node's own fault.
func (r *Registry) Infer(ctx context.Context, q Request) (Response, error) {
	done, err := admit(ctx, q.Model)
	if err != nil {
		return Response{}, err
	}
	defer done()
	return r.inferAdmitted(ctx, q)
}

// inferAdmitted is Infer for a client that has been admitted.
func (r *Registry) inferAdmitted(ctx context.Context, q Request) (response Response, err error) {
	var m *model
	if times := r.begin(ctx); times != nil {
		q.times = times
		defer func() { r.end(ctx, times, m, err) }()
	}
	if q.Arrived.IsZero() {
		q.Arrived = time.Now()
	}
	m, shadows, err := r.useReady(ctx, &q)
	if err != nil {
		return Response{}, err
	}
	defer m.users.Done()
	r.cast(&q, shadows)
	return r.answer(ctx, m, q)
}

// useReady is use, once the model is ready where it takes the place of another or
// is loaded on demand. One that is replaced before it was ready leaves its requests
// to the next.
func (r *Registry) useReady(ctx context.Context, q *Request) (m *model, shadows []*model, err error) {
	for {
		if m, shadows, err = r.use(ctx, q); err != nil {
			return nil, nil, err
		}
		wait, cancel := m.until(ctx, q)
		_, _, err := m.ready(wait)
		cancel()
		if err == nil || m.ctx.Err() == nil {
			if m.demand != nil {
				q.unloaded = err
			}
			return m, shadows, nil // answer says what is wrong
		}
		for _, s := range shadows {
			s.shadowed.Release(1)
			s.users.Done()
		}
		m.users.Done()
	}
}

// answer has a model answer a request.
func (r *Registry) answer(ctx context.Context, m *model, q Request) (Response, error) {
	c, a := r.calls.get(), r.answers.get()
	a.holds = q.holds
	c.job.times, c.job.arrived = q.times, q.Arrived
	err := q.unloaded
	if err == nil {
		err = m.checkSequence(&q)
	}
	if err == nil {
		err = m.Reshapes.request(&q)
	}
	switch {
	case err == nil && m.Ensemble != nil:
		err = r.inferSteps(ctx, m, a, &q)
	case err != nil:
	case q.Sequence.ID != "":
		err = m.inferNext(ctx, c, a, &q)
	default:
		err = m.infer(ctx, c, a, &q)
	}
	if err == nil {
		err = m.Reshapes.outputs(a.outputs)
	}
	c.job.times = nil
	r.calls.put(c)
	m.metrics.observe(time.Since(q.Arrived), m.wantedWithin(&q), err)
	if err != nil {
		r.answers.put(a)
		return Response{}, err
	}
	return Response{Model: m.ServedAs, Version: m.Version, Outputs: a.outputs, memory: a}, nil
}

// Accepts returns nil where Infer would take the request into its queue. It
// looks at everything but the data: a front asks before it reads many of them,
// and before it reads any with a request that has no inputs yet.
func (r *Registry) Accepts(ctx context.Context, q *Request) error {
	if err := permit(ctx, q.Model); err != nil {
		return err
	}
	m, err := r.asked(q.Model, q.Version)
	if err != nil {
		return err
	}
	mem, meta, err := m.opened()
	if err != nil && (m.succeeds || m.demand != nil) && !m.failed() {
		return nil // it is waited for
	}
	if err != nil || len(q.Inputs) == 0 {
		return err
	}
	if err := m.checkSequence(q); err != nil {
		return err
	}
	if all := m.sequences.Load(); all != nil {
		full, err := all.withState(q, all.initial)
		if err != nil {
			return err
		}
		q = &full
	}
	if !m.Reshapes.none() {
		shaped := *q
		if err := m.Reshapes.request(&shaped); err != nil {
			return err
		}
		q = &shaped
	}
	var run channel.Request
	if _, err := q.bind(meta, &run, nil); err != nil {
		return err
	}
	if mem == nil {
		return nil // of an ensemble each step has its own
	}
	_, _, err = mem.layout(meta, &run, nil)
	return err
}

// MaxRequest is how many bytes the inputs and outputs of one request to a model
// that a client names may have; DefaultMaxRequest as long as its worker has not
// told what it needs, and 0 for one that is not served.
func (r *Registry) MaxRequest(name, version string) int64 {
	m, err := r.asked(name, version)
	if err != nil {
		return 0
	}
	if mem, _, err := m.opened(); err == nil && mem != nil {
		return int64(mem.region.SlotBytes)
	}
	return cmp.Or(m.MaxRequest, DefaultMaxRequest)
}

// Outputs returns the outputs of a model that a client names, or nil as long as
// its worker has not told them. The caller must not change them.
func (r *Registry) Outputs(name, version string) []tensor.Spec {
	m, err := r.asked(name, version)
	if err != nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if all := m.sequences.Load(); all != nil {
		return all.outputs
	}
	if m.metadata == nil {
		return nil
	}
	return seen(m.Reshapes.Outputs, m.metadata.Outputs)
}

// Ready waits for a model that takes the place of another or is loaded on demand, as
// Infer does, and describes it. It fails as Infer would where the model takes no requests.
func (r *Registry) Ready(ctx context.Context, name, version string) (Status, error) {
	if err := permit(ctx, name); err != nil {
		return Status{}, err
	}
	for {
		m, err := r.asked(name, version)
		if err != nil {
			return Status{}, err
		}
		_, _, err = m.ready(ctx)
		switch {
		case err == nil:
			return m.status(), nil
		case m.ctx.Err() == nil:
			return Status{}, err
		}
	}
}

// Refused counts a request to a model that its front could not read.
func (r *Registry) Refused(model, version string) {
	if m, err := r.asked(model, version); err == nil {
		m.metrics.observe(0, 0, ErrInvalid)
	}
}

// opened returns what requests need, once the worker has answered for the first
// time. An ensemble has no memory.
func (m *model) opened() (*memory, *channel.Metadata, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.memory == nil && (m.Ensemble == nil || m.metadata == nil) {
		s := Status{Name: m.Name, State: m.state, Message: m.message}
		return nil, nil, fmt.Errorf("%w: %s", ErrNotReady, s.Reason())
	}
	return m.memory, m.metadata, nil
}

// layout returns where the inputs lie in a slot, and where they end.
func (m *memory) layout(meta *channel.Metadata, run *channel.Request, offsets []int) ([]int, int, error) {
	offsets, end, err := channel.Layout(meta.Inputs, run.Shapes, run.Sizes, offsets)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if end > m.region.SlotBytes {
		return nil, 0, fmt.Errorf("%w: inputs of %d bytes, the model's spec.maxRequest allows %d: send less at once, or raise it (oscine serve --max-request)", ErrInvalid, end, m.region.SlotBytes)
	}
	return offsets, end, nil
}

func (m *model) failed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state == Failed
}

// ready returns what requests need. For a model that takes the place of another,
// or is loaded on demand, they wait until its worker is ready.
func (m *model) ready(ctx context.Context) (*memory, *channel.Metadata, error) {
	if m.demand != nil {
		if err := m.load(ctx); err != nil {
			return nil, nil, err
		}
	}
	if m.succeeds && !m.open.Load() {
		ctx, cancel := context.WithTimeout(ctx, m.Timeout)
		defer cancel()
		if err := m.waitReady(ctx); err != nil {
			return nil, nil, err
		}
	}
	return m.opened()
}

func (m *model) infer(ctx context.Context, c *call, a *answer, q *Request) error {
	wait, cancel := m.until(ctx, q)
	defer cancel()
	if m.demand != nil {
		defer m.hold()()
	}
	mem, meta, err := m.ready(wait)
	if err != nil {
		return err
	}
	run := &c.job.request
	if c.order, err = q.bind(meta, run, c.order); err != nil {
		return err
	}
	var end int
	if c.offsets, end, err = mem.layout(meta, run, c.offsets); err != nil {
		return err
	}
	c.job.ctx, c.job.rank = ctx, m.rank(q)
	var counted int64
	if run.Slot, counted, err = m.takeSlot(mem, &c.job, end); err != nil {
		return err
	}
	used := end
	defer func() { m.release(mem, &c.job, used, counted) }()
	slot := mem.region.Slot(run.Slot)
	if err := c.fill(q, meta, slot); err != nil {
		return err
	}
	var (
		key        cacheKey
		generation int
	)
	if m.cache != nil {
		began := time.Now()
		key = m.cache.key(ctx, c, slot)
		if found, err := m.cache.get(ctx, key, a, began); found {
			return err
		}
		generation = m.cache.generation()
	}
	run.ID, run.Stream = m.ids.Add(1), q.Part != nil && meta.Streams
	if run.Stream {
		var reached int
		reached, err = m.stream(&c.job, a, meta, slot, q.Part)
		used = max(used, reached)
	} else {
		m.run(&c.job)
		err = c.job.err
	}
	if err != nil {
		used = mem.region.SlotBytes
		return err
	}
	out, err := c.collect(a, meta, slot)
	used = max(used, out)
	mem.grew(used - end)
	if m.cache != nil && err == nil {
		m.cache.put(key, a.outputs, generation)
	}
	return err
}
